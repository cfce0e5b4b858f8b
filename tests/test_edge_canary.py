"""A new revision drives its first trip on trial, beside the confirmed one, and may fall back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from common.messages import Acknowledgement, Status, TripSummary, decode
from common.revision import Cause
from edge_agent.mqtt.link import Received
from edge_agent.parameters import revision_records
from edge_agent.parameters.canary import LEAST_SAMPLES, MARGIN, is_worse
from edge_agent.storage import kept, outbox
from tests.support_edge import VEHICLE, Rig, aged_bundle, drive, revision_for, signed

PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
GOOD, BAD = 1.1, 1.3  # the battery's gain, and one that a sensor that was off would tell


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "state.db", aged_bundle(tmp_path / "bundle"))
    rig.connect()
    yield rig
    rig.state.close()


def tell(rig: Rig, number: int, gain: float, **changes: object) -> None:
    made = revision_for(rig.bundle, number=number, theta=[gain, 0.0], **changes)
    rig.tell(Received(PARAMETERS, signed(made)))


def words(rig: Rig) -> list[tuple[int, str, str]]:
    """(revision, verdict, reason) of every acknowledgement, in the order in which they went out."""
    answers = [decode(payload, Acknowledgement) for payload in rig.link.payloads("ack")]
    return [(a.revision, a.verdict, a.reason) for a in answers]


def summaries(rig: Rig) -> list[TripSummary]:
    return [decode(payload, TripSummary) for payload in rig.link.payloads("trip")]


@pytest.fixture
def confirmed(rig: Rig) -> Rig:
    """A vehicle that has confirmed revision 1, which is right."""
    tell(rig, 1, GOOD)
    rig.drive("trip-1")
    return rig


def test_what_is_right_is_confirmed_on_its_first_trip(confirmed: Rig) -> None:
    assert words(confirmed) == [(1, "applied", ""), (1, "confirmed", "")]
    assert confirmed.agent.status().on_trial is False
    assert revision_records.trial(confirmed.state.connection) is None
    answer = decode(confirmed.link.payloads("ack")[1], Acknowledgement)
    assert answer.error_before_v is not None
    assert answer.error_after_v is not None
    assert answer.error_after_v < 1e-6
    assert answer.error_before_v > 0.05


def test_what_is_worse_drives_one_trip_and_falls_back(confirmed: Rig) -> None:
    tell(confirmed, 2, BAD)
    assert confirmed.agent.status().on_trial is True
    confirmed.drive("trip-2", odometer=2000.0)
    assert words(confirmed)[2:] == [(2, "applied", ""), (2, "refused", "worse_on_next_trip")]
    status = decode(confirmed.link.payloads("status")[-1], Status)
    assert (status.revision, status.on_trial, status.fallen_back) == (1, False, 1)
    confirmed.drive("trip-3", odometer=3000.0)
    assert [s.revision for s in summaries(confirmed)] == [1, 2, 1]
    assert summaries(confirmed)[2].error_v < 1e-6


def test_the_cloud_hears_of_the_fall_before_the_breach_that_came_with_it(confirmed: Rig) -> None:
    tell(confirmed, 2, BAD)
    confirmed.link.sent.clear()
    confirmed.drive("trip-2", odometer=2000.0)
    kinds = [kind for kind, _ in confirmed.link.sent if kind in {"ack", "breach"}]
    assert kinds == ["ack", "breach"]


def test_what_fell_back_is_not_taken_again(confirmed: Rig) -> None:
    tell(confirmed, 2, BAD)
    confirmed.drive("trip-2", odometer=2000.0)
    told = words(confirmed)
    for _ in range(2):
        tell(confirmed, 2, BAD)
        confirmed.reopen()
        confirmed.connect()
        assert confirmed.agent.twin.revision == 1
    assert words(confirmed) == told  # what waits is offered again; nothing is added
    tell(confirmed, 3, GOOD)
    assert confirmed.agent.twin.revision == 3


def test_the_trip_that_was_running_is_no_trial(rig: Rig) -> None:
    samples = list(drive(rig.bundle, "trip-1"))
    for sample in samples[:30]:
        rig.agent.take(sample)
    tell(rig, 1, BAD)
    for sample in samples[30:]:
        rig.agent.take(sample)
    rig.agent.driving.end_trip()
    assert words(rig) == [(1, "applied", "")]
    assert rig.agent.status().on_trial


def test_a_trial_that_a_restart_cut_is_held_on_the_next_trip(confirmed: Rig) -> None:
    tell(confirmed, 2, BAD)
    confirmed.agent.driving.keep_trips()
    samples = list(drive(confirmed.bundle, "trip-2", odometer=2000.0, count=120))
    for sample in samples[:40]:
        confirmed.agent.take(sample)
    confirmed.agent.driving.leave_trip()
    confirmed.reopen()
    confirmed.connect()
    assert (confirmed.agent.twin.revision, confirmed.agent.status().on_trial) == (2, True)
    confirmed.agent.driving.keep_trips()
    for sample in samples[40:]:
        confirmed.agent.take(sample)
    confirmed.agent.driving.end_trip()
    assert confirmed.agent.status().on_trial
    confirmed.drive("trip-3", odometer=3000.0)
    assert confirmed.agent.twin.revision == 1


@pytest.mark.parametrize("how", ["too short", "partial"])
def test_a_trip_that_says_too_little_decides_nothing(confirmed: Rig, how: str) -> None:
    tell(confirmed, 2, BAD)
    count = LEAST_SAMPLES - 1 if how == "too short" else 60
    for sample in drive(confirmed.bundle, "trip-2", odometer=2000.0, count=count):
        confirmed.agent.take(sample)
    confirmed.agent.driving.end_trip(partial=how == "partial")
    assert (confirmed.agent.twin.revision, confirmed.agent.status().on_trial) == (2, True)


def test_a_newer_revision_takes_the_place_on_trial_and_what_is_confirmed_stays(
    confirmed: Rig,
) -> None:
    tell(confirmed, 2, BAD)
    tell(confirmed, 3, BAD + 0.01, cause=_breach("x"))
    confirmed.drive("trip-2", odometer=2000.0)
    assert confirmed.agent.twin.revision == 1
    assert (2, "refused", "worse_on_next_trip") not in words(confirmed)


def test_the_first_revision_falls_back_to_the_nominal_parameters(rig: Rig) -> None:
    tell(rig, 1, BAD)
    rig.drive("trip-1", gain=1.0)
    assert rig.agent.twin.revision == 0
    rig.reopen()
    assert rig.agent.twin.revision == 0


@pytest.mark.parametrize("kind", ["replacement", "roll_back"])
def test_a_new_battery_and_an_operators_wish_have_nothing_to_prove(
    confirmed: Rig, kind: str
) -> None:
    cause = msgspec.convert({"kind": kind, "message_id": "0" * 32}, Cause)
    tell(confirmed, 2, BAD, odometer=1500.0, cause=cause)
    assert (confirmed.agent.twin.revision, confirmed.agent.status().on_trial) == (2, False)
    confirmed.drive("trip-2", odometer=2000.0)
    assert confirmed.agent.twin.revision == 2


def test_a_recalibration_must_prove_itself_on_the_next_trip(confirmed: Rig) -> None:
    cause = Cause(kind="recalibration", message_id="0" * 32, replays="1" * 32, ordered_by="desk")
    tell(confirmed, 2, BAD, odometer=1500.0, cause=cause)
    assert (confirmed.agent.twin.revision, confirmed.agent.status().on_trial) == (2, True)
    confirmed.drive("trip-2", odometer=2000.0)
    assert confirmed.agent.twin.revision == 1


def test_an_operators_wish_is_taken_although_the_kept_trace_is_worse(rig: Rig) -> None:
    rig.drive("trip-1")
    cause = Cause(kind="roll_back", message_id="0" * 32, returns_to=1, ordered_by="desk")
    tell(rig, 1, 0.9, cause=cause)
    assert rig.agent.twin.revision == 1
    tell(rig, 2, 2.5, cause=cause)  # but not outside the bounds
    assert rig.agent.twin.revision == 1


# ---- records -------------------------------------------------------------------------------------


def numbers(rig: Rig) -> list[int]:
    """Of the confirmed records, the newest first."""
    records = revision_records.confirmed(rig.state.connection)
    return [msgspec.json.decode(record.revision)["number"] for _, record in records]


def test_the_last_three_that_were_confirmed_are_kept(rig: Rig) -> None:
    for number in range(1, 6):
        tell(rig, number, 1.1 + number / 1e4, cause=_breach(str(number)))
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    assert numbers(rig) == [5, 4, 3]


def test_where_the_newest_is_damaged_the_one_before_drives_and_the_newest_is_taken_again(
    rig: Rig,
) -> None:
    for number in (1, 2):
        tell(rig, number, 1.1 + number / 1e4, cause=_breach(str(number)))
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    with rig.state.transaction() as db:
        kept.write_parameters(db, "confirmed", b"damaged")
    rig.reopen()
    assert rig.agent.twin.revision == 1
    rig.connect()
    tell(rig, 2, 1.1002, cause=_breach("2"))
    assert rig.agent.twin.revision == 2


def test_what_an_older_agent_ran_is_confirmed(rig: Rig) -> None:
    with rig.state.transaction() as db:
        kept.write_parameters(db, "current", signed(revision_for(rig.bundle, number=7)))
    rig.reopen()
    rig.connect()
    assert (rig.agent.twin.revision, rig.agent.status().on_trial) == (7, False)
    tell(rig, 8, 1.1001, cause=_breach("8"))
    rig.drive("trip-1")
    assert numbers(rig) == [8, 7]
    assert "current" not in kept.slots(rig.state.connection)


def test_the_verdict_the_records_and_the_trip_are_one_transaction(
    confirmed: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(confirmed, 2, BAD)
    before = outbox.size(confirmed.state.connection)
    with monkeypatch.context() as broken:
        broken.setattr(kept, "finish_trip", _no_space)
        confirmed.drive("trip-2", odometer=2000.0)
    assert confirmed.agent.twin.revision == 2
    assert outbox.size(confirmed.state.connection) == before
    confirmed.reopen()
    assert (confirmed.agent.twin.revision, confirmed.agent.status().on_trial) == (2, True)


def test_worse_is_by_more_than_the_margin() -> None:
    class Manifest:
        error_threshold_v = 0.04

    assert not is_worse(0.01, 0.01 + MARGIN * 0.04 - 1e-9, Manifest())  # type: ignore[arg-type]
    assert is_worse(0.01, 0.01 + MARGIN * 0.04 + 1e-9, Manifest())  # type: ignore[arg-type]


def _breach(message: str) -> Cause:
    return Cause(kind="breach", message_id=message.rjust(32, "0").replace("x", "f"))


def _no_space(*_: object) -> None:
    import sqlite3

    raise sqlite3.OperationalError("database or disk is full")
