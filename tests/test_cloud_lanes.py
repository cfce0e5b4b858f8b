"""Lanes, and breaches over which the calibration fails: one lane at a time, one breach alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from cloud.calibration import rounds
from cloud.calibration.poison import MAX_TRIES
from cloud.calibration.revising import Author
from cloud.errors import OvertakenError, RetryError
from cloud.intake.interpretation import Delivery
from cloud.intake.retries import retry
from cloud.push.courier import Courier
from cloud.store import pending_breaches, quarantined, revisions
from cloud.store.lanes import LANES, lane_of
from cloud.store.tables import Breach as BreachRow
from cloud.store.tables import Quarantine, RevisionRow, Vehicle
from common.calibrator import Case
from common.calibrator import decide as decide_cases
from common.messages import MAX_PAYLOAD_BYTES, Breach, decode, encode
from tests.cloud_doubles import Insides, RememberingPublisher, write_bundle


@pytest.fixture
def inside(tmp_path: Path) -> Insides:
    return Insides(tmp_path, write_bundle(tmp_path / "bundle"))


@pytest.fixture
def failing(inside: Insides, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Odometers at which the calibration itself fails."""
    odometers: list[float] = []

    def decide(cases: Sequence[Case], *rest: Any) -> Any:
        if any(case.odometer in odometers for case in cases):
            raise RuntimeError("the filter exploded")
        return decide_cases(cases, *rest)

    monkeypatch.setattr(rounds, "decide", decide)
    return odometers


def calibrations(inside: Insides) -> rounds.Calibrations:
    return inside.worker._calibrations


def test_the_lane_of_a_vehicle_is_the_same_for_ever() -> None:
    assert LANES == 64
    assert [lane_of(name) for name in ("car", "car-7", "VIN_1")] == [29, 56, 42]


def test_rows_carry_the_lane_of_their_vehicle(inside: Insides) -> None:
    inside.take(inside.car().trip(1), inside.car().breach(5))
    assert [row.lane for row in inside.table(Vehicle)] == [lane_of("car")]
    assert [row.lane for row in inside.table(BreachRow)] == [lane_of("car")]


def test_a_round_of_a_lane_leaves_the_other_lanes_alone(inside: Insides) -> None:
    inside.take(inside.car("a").breach(5), inside.car("b").breach(5))
    assert lane_of("a") != lane_of("b")
    calibrations(inside).round([lane_of("b")])
    assert [len(inside.rows(name)) for name in ("a", "b")] == [0, 1]
    with inside.store.read() as db:
        waiting = pending_breaches.pending_lanes(db, inside.catalogue.hashes, inside.now)
    assert waiting == [lane_of("a")]


def test_what_another_worker_has_settled_meanwhile_is_dropped(inside: Insides) -> None:
    inside.take(inside.car().breach(5))
    stale = next(calibrations(inside)._next(None))
    decisions = calibrations(inside)._decide(inside.bundle.sha256, stale)
    inside.work()
    with pytest.raises(OvertakenError):
        calibrations(inside)._commit(stale, decisions)
    assert [row.number for row in inside.rows()] == [1]
    assert inside.breach_states() == {"trip5": "calibrated"}


def test_what_another_worker_has_gone_on_from_meanwhile_is_tried_again(inside: Insides) -> None:
    """A breach of lower odometer came in between, and another worker made a revision of it."""
    inside.take(inside.car().breach(6))
    stale = next(calibrations(inside)._next(None))
    decisions = calibrations(inside)._decide(inside.bundle.sha256, stale)
    inside.take(inside.car().breach(5))
    calibrations(inside).round()
    with pytest.raises(OvertakenError):
        calibrations(inside)._commit(stale, decisions)
    inside.work()
    assert [row.odometer for row in inside.rows()] == [5000.0, 6000.0]


def test_a_breach_over_which_the_calibration_fails_is_kept_and_holds_up_nobody(
    inside: Insides, failing: list[float]
) -> None:
    failing.append(5000.0)
    inside.take(inside.car("a").breach(5), inside.car("b").breach(6))
    inside.work()
    assert [len(inside.rows(name)) for name in ("a", "b")] == [0, 1]
    [row] = inside.table(Quarantine)
    assert (row.topic, row.error) == ("twin/v1/a/breach", "CalibrationFailedError")
    assert "the filter exploded" in row.reason
    assert decode(row.payload, Breach) == inside.car("a").breach(5)
    assert "the filter exploded" in next(iter(inside.publisher.declined.values()))


def test_a_breach_over_which_workers_end_is_tried_alone_and_then_no_more(inside: Insides) -> None:
    """A worker that ends says nothing: who takes its lane over counts, before each attempt."""
    inside.take(inside.car("a").breach(5))
    calibrations(inside).suspect(lane_of("a"))
    for _ in range(MAX_TRIES - 1):
        next(calibrations(inside)._next([lane_of("a")]))  # and here the worker ends
    assert inside.breach_states() == {"trip5": "pending"}
    inside.work()
    assert inside.breach_states() == {"trip5": "declined"}
    [row] = inside.table(Quarantine)
    assert "3 workers ended over it" in row.reason


def test_a_breach_that_was_only_near_an_end_is_calibrated(inside: Insides) -> None:
    inside.take(inside.car("a").breach(5))
    calibrations(inside).suspect(lane_of("a"))
    inside.work()
    assert inside.breach_states() == {"trip5": "calibrated"}


def test_of_old_refused_messages_only_the_beginning_is_kept(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantined, "WHOLE_ROWS", 2)
    monkeypatch.setattr(quarantined, "BEGINNING_BYTES", 3)
    inside.take(*(Delivery("x", b"%d-----" % i, mid=i) for i in range(4)))
    assert [len(row.payload) for row in inside.table(Quarantine)] == [3, 3, 6, 6]


def test_what_the_broker_has_not_confirmed_is_found(inside: Insides) -> None:
    inside.publisher.confirms = False
    inside.take(inside.car().breach(5))
    inside.work()
    with inside.store.read() as db:
        assert [row.number for row in revisions.unpublished(db, inside.now)] == [1]
        assert db.exec(select(RevisionRow.published_at)).all() == [None]
    inside.publisher.waiting.pop()()
    inside.work()
    with inside.store.read() as db:
        assert revisions.unpublished(db, inside.now) == []


def test_of_two_that_publish_for_a_vehicle_the_newest_revision_stays_with_the_broker(
    inside: Insides,
) -> None:
    """Another process published revision 1 again, and the broker took it after revision 2."""
    other = RememberingPublisher(confirms=False)
    courier = Courier(
        inside.store, other, lambda: inside.now, Author(inside.key, "0.1.0"), lambda: None
    )
    inside.take(inside.car().breach(5))
    inside.work()
    courier.republish(["car"])
    courier.turn()
    inside.take(inside.car().breach(6, revision=1))
    inside.work()
    assert (inside.publisher.numbers, other.numbers) == ([1, 2], [1])
    other.waiting.pop()()
    courier.turn()
    assert other.numbers == [1, 2]
    other.waiting.pop()()
    courier.turn()
    assert other.numbers == [1, 2]


def test_a_breach_of_the_quarantine_is_taken_in_again_once_the_cause_is_mended(
    inside: Insides, failing: list[float]
) -> None:
    failing.append(5000.0)
    inside.take(inside.car("a").breach(5))
    inside.work()
    [row] = inside.table(Quarantine)
    failing.clear()
    with inside.store.write() as db:
        retry(db, db.merge(row), inside.catalogue, inside.now, "somebody")
    inside.worker.wake()
    inside.work()
    assert inside.table(Quarantine) == []
    assert inside.breach_states() == {"trip5": "calibrated"}
    assert [row.number for row in inside.rows("a")] == [1]


def test_what_is_still_wrong_or_not_whole_stays_in_the_quarantine(inside: Insides) -> None:
    bad = encode(inside.car().breach(5, odometer=-1.0))
    big = b"x" * (MAX_PAYLOAD_BYTES + 1)
    inside.take(
        Delivery("twin/v1/car/breach", bad, mid=1), Delivery("twin/v1/car/trip", big, mid=2)
    )
    for row, sentence in zip(
        inside.table(Quarantine), ("refused", "only its beginning"), strict=True
    ):
        with pytest.raises(RetryError, match=sentence), inside.store.write() as db:
            retry(db, db.merge(row), inside.catalogue, inside.now, "somebody")
    assert len(inside.table(Quarantine)) == 2
