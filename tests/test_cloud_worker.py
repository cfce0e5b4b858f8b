"""The worker: odometer order, one revision a breach, what is published again, what is declined."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from cloud.errors import StoreUnavailableError
from cloud.location import PostgresUrl
from cloud.store import verification
from cloud.store.tables import Breach, Vehicle
from cloud.store.verification import Verified
from common import calibration, calibrator
from common.calibration import Calibrated, Settings
from common.calibrator import Case, Decline, MakeRevision, decide
from common.errors import CalibrationError
from common.messages import SignedRevision, decode
from common.model import VoltageModel
from common.revision import GENESIS, decode_revision
from common.signing import key_id, verify
from common.trace import TraceArrays, from_wire
from tests.cloud_doubles import FailingCommits, Insides, write_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    inside = Insides(tmp_path, bundle_path, database)
    yield inside
    inside.store.close()


def test_a_breach_brings_a_signed_revision_on_the_retained_topic(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    [sent] = inside.publisher.of_kind("parameters")
    content = verify(
        decode(sent.payload, SignedRevision),
        {key_id(inside.key.public_key()): inside.key.public_key()},
    )
    revision = decode_revision(content)
    assert (sent.topic, sent.retain) == ("twin/v1/car/parameters", True)
    assert (revision.number, revision.base, revision.parent_hash) == (1, 0, GENESIS)
    assert revision.cause.message_id == car.breach(5).message_id
    assert revision.cause.error_after_v < revision.cause.error_before_v
    assert revision.theta[0] == pytest.approx(1.07, abs=0.02)
    [row] = inside.rows()
    assert row.content == content
    assert row.published_at is not None
    assert inside.breach_states() == {"trip5": "calibrated"}


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(1, 11)))
def test_breaches_that_arrive_at_once_are_calibrated_in_odometer_order(
    order: list[int], tmp_path_factory: pytest.TempPathFactory, bundle_path: Path
) -> None:
    inside = Insides(tmp_path_factory.mktemp("order"), bundle_path)
    car = inside.car()
    inside.take(*(car.breach(5 * trip) for trip in order))
    inside.work()
    rows = inside.rows()
    odometers = [row.odometer for row in rows]
    assert odometers == sorted(odometers)
    assert set(inside.breach_states().values()) <= {"calibrated", "declined"}
    assert not any("newer revision" in why for why in inside.publisher.declined.values())
    assert [decode_revision(row.content).base for row in rows] == list(range(len(rows)))
    inside.store.close()


def test_vehicles_are_calibrated_together_and_apart_alike(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    cars = [inside.car(f"car{i}") for i in range(5)]
    together = [car.breach(5, odometer=5000.0 + i) for i, car in enumerate(cars)]
    inside.take(*together)
    calls: list[int] = []
    real = decide

    def counting(cases: list[Case], *rest: object) -> list[calibrator.Decision]:
        calls.append(len(cases))
        return real(cases, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("cloud.calibration.rounds.decide", counting)
    inside.work()
    assert max(calls) == 5
    manifest, model = inside.bundle.manifest, VoltageModel(inside.bundle)
    for car, breach in zip(cars, together, strict=True):
        case = Case(
            from_wire(breach.trace, manifest),
            breach.odometer,
            calibration.prior(manifest),
            calibration.prior(manifest),
        )
        [alone] = decide([case], model, manifest, Settings())
        assert isinstance(alone, MakeRevision)
        theta = decode_revision(inside.rows(car.vehicle_id)[0].content).theta
        assert theta == pytest.approx(
            alone.calibrated.estimate.theta.tolist(), abs=1e-3
        )  # float32 in other batches


def test_a_late_breach_is_declined_and_leaves_the_revision_alone(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.breach(9))
    inside.work()
    inside.take(car.breach(5), car.breach(6, odometer=9000.0))
    inside.work()
    assert len(inside.rows()) == 1
    assert inside.breach_states() == {
        "trip9": "calibrated",
        "trip5": "declined",
        "trip6": "declined",
    }
    reasons = inside.publisher.declined
    assert "arrived after a newer revision" in reasons[car.breach(5).message_id]
    assert len(reasons) == 2


def test_the_next_revision_grows_from_the_newest_that_stands_and_links_to_the_newest(
    inside: Insides,
) -> None:
    car = inside.car()
    for trip, verdict in ((5, "applied"), (10, "refused")):
        inside.take(car.breach(trip))
        inside.work()
        inside.take(car.acknowledgement(inside.rows()[-1], verdict))
    inside.take(car.breach(15))
    inside.work()
    first, second, third = inside.rows()
    revision = decode_revision(third.content)
    assert (revision.number, revision.base) == (3, 1)
    assert revision.parent_hash == second.hash
    # exactly what the first revision's posterior gives, without the refused one
    manifest, model = inside.bundle.manifest, VoltageModel(inside.bundle)
    base = calibration.estimate_of(decode_revision(first.content))
    wire = car.breach(15).trace
    [expected] = calibration.calibrate(
        [base],
        [from_wire(wire, manifest)],
        [15000.0],
        model,
        manifest,
        Settings(),
    )
    assert revision.theta == expected.estimate.theta.tolist()


def test_a_revision_without_a_verdict_serves_as_base(inside: Insides) -> None:
    car = inside.car()
    for trip in (5, 10):
        inside.take(car.breach(trip))
        inside.work()
    assert decode_revision(inside.rows()[1].content).base == 1


def test_a_breach_that_a_calibration_cannot_help_is_declined(inside: Insides) -> None:
    car = inside.car()
    for trip in range(5, 12):  # the same trace until there is nothing more to learn from it
        same = car.breach(trip, odometer=5000.0 + trip, trace=car.breach(5).trace)
        inside.take(msgspec.structs.replace(same, revision=len(inside.rows())))
        inside.work()
    reasons = list(inside.publisher.declined.values())
    assert reasons
    assert all("would not lower the error" in reason for reason in reasons)


def test_a_vehicle_whose_history_is_lost_is_calibrated_anew_above_its_number(
    inside: Insides,
) -> None:
    for trip, running in ((5, 7), (8, 8)):
        inside.take(inside.car().breach(trip, revision=running))
        inside.work()
    found = [decode_revision(row.content) for row in inside.rows()]
    assert [(r.number, r.resumes_after, r.base) for r in found] == [(8, 7, 0), (9, 0, 8)]
    with inside.store.read() as db:
        [chain] = verification.verify_all(db, verification.remembered_keys(db))
    assert chain == Verified("car", 2, inside.rows()[-1].hash)


def test_a_vehicle_that_asks_for_the_outcome_it_had_acknowledged_is_told_again(
    inside: Insides,
) -> None:
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.acknowledgement(inside.rows()[0], "applied"))
    inside.publisher.sent.clear()
    inside.take(car.status(awaiting=[car.breach(5).message_id]))
    inside.work()
    assert inside.publisher.numbers == [1]


def test_an_estimate_that_cannot_be_judged_holds_up_nobody(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise OverflowError

    monkeypatch.setattr("cloud.calibration.rounds.evidence.gather_all", fails)
    inside.take(inside.car("a").breach(5), inside.car("b").breach(5))
    inside.work()
    assert [len(inside.rows("a")), len(inside.rows("b"))] == [1, 1]


def test_one_poison_breach_does_not_hold_up_the_others(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calibration.calibrate

    def fails_with_poison(
        priors: list[calibration.Estimate],
        traces: list[TraceArrays],
        odometers: list[float],
        *rest: object,
    ) -> list[Calibrated]:
        if 6666.0 in odometers:
            raise CalibrationError("the update gave a number that is not finite")
        return real(priors, traces, odometers, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "calibrate", fails_with_poison)
    good = [inside.car(f"good{i}") for i in range(3)]
    poison = inside.car("poison").breach(6, odometer=6666.0)
    inside.take(good[0].breach(5), poison, good[1].breach(5), good[2].breach(5))
    inside.work()
    assert all(len(inside.rows(car.vehicle_id)) == 1 for car in good)
    assert "not finite" in inside.publisher.declined[poison.message_id]


def test_a_stored_trace_that_no_longer_reads_is_declined(inside: Insides) -> None:
    inside.take(inside.car().breach(5))
    with inside.store.write() as db:
        db.exec(select(Breach)).one().trace = b"{"
    inside.work()
    assert "cannot be read" in next(iter(inside.publisher.declined.values()))


def test_a_trace_that_no_parameters_explain_is_declined(inside: Insides) -> None:
    car = inside.car()
    trace = car.breach(5).trace
    low = msgspec.structs.replace(trace, voltage_v=[v - 1.5 for v in trace.voltage_v])
    inside.take(car.breach(5, trace=low))
    inside.work()
    [reason] = inside.publisher.declined.values()
    assert "no parameters explain this trip" in reason
    assert inside.rows() == []


def test_nothing_is_published_before_its_commit(inside: Insides) -> None:
    inside.take(inside.car().breach(5))
    inside.publisher.sent.clear()
    error = OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))
    commits = FailingCommits(inside.store, error)
    inside.worker._turning.awake.clear()
    with pytest.raises(StoreUnavailableError):
        inside.worker.turn()
    assert inside.publisher.sent == []
    commits.close()
    inside.worker.turn()
    assert inside.publisher.numbers == [1]
    assert len(inside.rows()) == 1


def test_after_a_restart_and_at_each_connection_the_newest_unanswered_revision_goes_out_again(
    inside: Insides,
) -> None:
    car, other = inside.car(), inside.car("other")
    for trip in (5, 10):
        inside.take(car.breach(trip))
        inside.work()
    inside.take(other.breach(5))
    inside.work()
    inside.take(other.acknowledgement(inside.rows("other")[0], "applied"))
    inside.publisher.sent.clear()
    inside.start()
    inside.worker.reconnected()
    inside.work()
    assert [(s.topic, s.revision.number) for s in inside.publisher.sent] == [
        ("twin/v1/car/parameters", 2)
    ]


def test_what_was_made_or_declined_without_a_connection_goes_out_at_the_next_one(
    inside: Insides,
) -> None:
    car = inside.car()
    inside.publisher.connected = False
    inside.take(car.breach(9))
    inside.work()
    inside.take(car.breach(5))
    inside.work()
    assert inside.publisher.sent == []
    assert inside.rows()[0].published_at is None
    inside.publisher.connected = True
    inside.start()
    inside.worker.reconnected()
    inside.work()
    assert inside.publisher.numbers == [1]
    assert list(inside.publisher.declined) == [car.breach(5).message_id]
    assert inside.rows()[0].published_at == inside.now
    inside.publisher.sent.clear()
    inside.worker.reconnected()
    inside.work()
    assert inside.publisher.declined == {}  # it was heard


@pytest.mark.parametrize(("running", "online", "published"), [(0, 1, [1]), (1, 1, []), (0, 0, [])])
def test_a_status_with_an_older_revision_brings_the_newest_again_even_an_applied_one(
    inside: Insides, running: int, online: int, published: list[int]
) -> None:
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.acknowledgement(inside.rows()[0], "applied"))
    inside.publisher.sent.clear()
    inside.take(car.status(revision=running, online=bool(online)))
    inside.work()
    assert inside.publisher.numbers == published


def test_a_refused_revision_is_never_published_again(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.acknowledgement(inside.rows()[0], "refused"))
    inside.publisher.sent.clear()
    inside.take(car.status(revision=0), car.breach(5))
    inside.worker.reconnected()
    inside.work()
    assert inside.publisher.numbers == []
    assert "refused its revision 1" in inside.publisher.declined[car.breach(5).message_id]


def test_a_duplicate_breach_brings_its_outcome_again(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.breach(9))
    inside.work()
    inside.take(car.breach(5))
    inside.work()
    inside.publisher.sent.clear()
    inside.take(car.breach(9), car.breach(5))
    inside.work()
    assert inside.publisher.numbers == [1]
    assert list(inside.publisher.declined) == [car.breach(5).message_id]
    assert len(inside.rows()) == 1


def test_a_vehicle_that_awaits_a_revision_that_gave_way_is_told_so(inside: Insides) -> None:
    car = inside.car()
    for trip in (5, 10):
        inside.take(car.breach(trip))
        inside.work()
    inside.publisher.sent.clear()
    awaiting = [car.breach(5).message_id, car.breach(10).message_id]
    inside.take(car.status(awaiting=awaiting))
    inside.work()
    assert inside.publisher.numbers == [2]
    assert inside.publisher.declined == {awaiting[0]: "its revision 1 gave way to revision 2"}


def test_the_state_of_the_estimate_is_kept_with_each_decision(inside: Insides) -> None:
    car = inside.car()
    inside.take(*(car.trip(i) for i in range(1, 6)), car.breach(5))
    inside.work()
    assert inside.table(Vehicle)[0].estimate_state in {"known", "learning", "doubtful"}
    assert inside.table(Vehicle)[0].estimate_state == "known"


def test_breaches_of_a_bundle_taken_out_of_service_wait_without_blocking_others(
    inside: Insides, tmp_path: Path, database: PostgresUrl | None
) -> None:
    other = Insides(tmp_path, write_bundle(tmp_path / "other", "other"), database)
    car = inside.car()
    inside.take(car.breach(4))
    other.start()  # same database, but this service knows the other bundle alone
    other.take(other.car().breach(5))
    other.work()
    assert [row.odometer for row in other.rows()] == [5000.0]
    assert other.breach_states() == {"trip4": "pending", "trip5": "calibrated"}
    other.store.close()


def test_every_interrupted_step_ends_with_the_same_revisions(
    tmp_path: Path, bundle_path: Path
) -> None:
    """Kill the process before or after any commit, redeliver what was not acknowledged."""
    wanted = _undisturbed(tmp_path / "calm", bundle_path)
    for seed in range(4):
        assert _disturbed(tmp_path / f"wild{seed}", bundle_path, seed) == wanted


class KilledError(BaseException):
    """The process ends here."""


def _undisturbed(folder: Path, bundle_path: Path) -> list[tuple[int, float, str]]:
    folder.mkdir()
    inside = Insides(folder, bundle_path)
    for trip in range(1, 9):
        inside.take(inside.car().breach(5 * trip))
        inside.work()
    return _facts(inside)


def _disturbed(folder: Path, bundle_path: Path, seed: int) -> list[tuple[int, float, str]]:
    folder.mkdir()
    inside = Insides(folder, bundle_path)
    draw = random.Random(seed)
    for trip in range(1, 9):
        inside.publisher.acknowledged.clear()
        while not inside.publisher.acknowledged:  # the broker keeps it and delivers again
            fate = draw.choice(["lives", "dies in commit", "dies after commit", "loses the link"])
            inside.publisher.connected = fate != "loses the link"
            _live(inside, inside.car().breach(5 * trip), fate)
            inside.start()
        inside.publisher.connected = True
        inside.worker.reconnected()
        inside.work()
    return _facts(inside)


def _live(inside: Insides, breach: object, fate: str) -> None:
    error = KilledError()
    commits = FailingCommits(inside.store, error, times=2 if fate == "dies in commit" else 0)
    try:
        inside.take(breach)  # type: ignore[arg-type]
        if fate != "dies after commit":
            inside.work()
    except KilledError:
        pass
    finally:
        commits.close()


def _facts(inside: Insides) -> list[tuple[int, float, str]]:
    found = [(row.number, row.odometer, row.cause_message_id) for row in inside.rows()]
    inside.store.close()
    return found


def test_the_reason_of_a_decline_fits_into_its_receipt(inside: Insides) -> None:
    [decision] = decide(
        [_bad_case(inside)], VoltageModel(inside.bundle), inside.bundle.manifest, Settings()
    )
    assert isinstance(decision, Decline)
    assert len(decision.reason) <= 256


def _bad_case(inside: Insides) -> Case:
    prior = calibration.prior(inside.bundle.manifest)
    broken = calibration.Estimate(prior.theta, prior.rate, -prior.covariance, 0.0)
    return Case(inside.car().trace(5.0), 5.0, broken, prior)
