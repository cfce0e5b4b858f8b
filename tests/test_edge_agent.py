"""The agent between disk and link: kept before it is offered, freed by a receipt, never stopped."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.bundle import Bundle
from common.calibration import extrapolate
from common.messages import (
    Acknowledgement,
    Breach,
    Declined,
    Receipt,
    Status,
    TripSummary,
    decode,
    encode,
    message_id,
)
from common.revision import Cause, encode_revision, revision_hash
from common.signing import sign
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Received
from edge_agent.samples import Sample, header_problem
from edge_agent.sources import BadRow, Item
from edge_agent.storage import kept, outbox
from tests.support_edge import (
    FOREIGN_KEY,
    KEY,
    START,
    VEHICLE,
    Rig,
    aged_bundle,
    drive,
    revision_for,
    signed,
)

PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
RECEIPT = f"twin/v1/{VEHICLE}/receipt"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[Rig]:
    opened = Rig(tmp_path / "state.db", bundle, receipt_timeout_s=30.0, status_interval_s=300.0)
    yield opened
    opened.state.close()


def id_of(trip_id: str, kind: str = "breach") -> str:
    return message_id(VEHICLE, trip_id, kind)


def waiting(rig: Rig) -> list[str]:
    return [entry.message_id for entry in outbox.waiting(rig.state.connection, 10_000)]


def kinds(rig: Rig) -> list[str]:
    return [entry.kind for entry in outbox.waiting(rig.state.connection, 10_000)]


def offered(rig: Rig, kind: str = "breach") -> list[str]:
    types: dict[str, Any] = {"breach": Breach, "trip": TripSummary, "ack": Acknowledgement}
    return [decode(payload, types[kind]).message_id for payload in rig.link.payloads(kind)]


def receipt(*ids: str, declined: tuple[str, ...] = (), vehicle_id: str = VEHICLE) -> Received:
    refusals = [Declined(message_id=one, reason="no improvement") for one in declined]
    message = Receipt(vehicle_id=vehicle_id, message_ids=list(ids), declined=refusals)
    return Received(RECEIPT, encode(message))


def accept_all(rig: Rig) -> None:
    """The broker's PUBACK for everything that was published so far."""
    rig.tell(*(Accepted(mid) for mid in range(1, len(rig.link.sent) + 1)))


# ---- kept before offered, freed by a receipt (INVARIANT 1) ----------------------------------


def test_a_message_is_on_the_disk_before_it_is_offered(rig: Rig) -> None:
    seen = []

    def look(kind: str, payload: bytes) -> None:
        if kind in {"breach", "trip"}:
            with closing(sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True)) as other:
                query = "SELECT COUNT(*) FROM outbox WHERE payload = ?"
                seen.append((kind, other.execute(query, (payload,)).fetchone()[0]))

    rig.link.on_publish = look
    rig.connect()
    rig.drive()
    assert seen == [("breach", 1), ("trip", 1)]


def test_a_silent_trip_sends_its_summary_and_no_breach(rig: Rig) -> None:
    rig.connect()
    rig.drive(gain=1.0)
    assert (offered(rig), offered(rig, "trip")) == ([], [id_of("trip-1", "trip")])
    assert rig.agent.is_settled()
    assert not rig.agent.is_drained()


def test_the_brokers_word_frees_nothing_and_the_clouds_receipt_does(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    both = [id_of("trip-1"), id_of("trip-1", "trip")]
    accept_all(rig)
    assert waiting(rig) == both
    rig.tell(receipt(*both))
    assert waiting(rig) == []
    assert not rig.agent.is_settled()  # what became of the breach is not known yet
    rig.tell(receipt(declined=(id_of("trip-1"),)))
    assert rig.agent.is_drained()


def test_without_a_connection_nothing_is_offered_and_all_of_it_later(rig: Rig) -> None:
    rig.drive("trip-1")
    rig.drive("trip-2", gain=1.0, odometer=2000.0)
    assert rig.link.sent == []
    rig.connect()
    assert offered(rig) == [id_of("trip-1")]
    assert offered(rig, "trip") == [id_of("trip-1", "trip"), id_of("trip-2", "trip")]


def test_an_outage_is_told_once_and_the_next_one_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.tell(Disconnected("nobody there"), Disconnected("still nobody"))
    assert caplog.text.count("broker_unreachable") == 1
    assert "nobody there" in caplog.text
    rig.tell(Connected(), Disconnected("cable"), Disconnected("nobody there"))
    assert caplog.text.count("broker_unreachable") == 2
    assert "cable" in caplog.text


def test_what_has_no_receipt_is_offered_again_after_a_reconnect(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    rig.tell(Disconnected("cable"))
    assert not rig.agent.connected
    rig.tell(Connected())
    assert offered(rig) == [id_of("trip-1")] * 2
    accept_all(rig)
    rig.tell(Disconnected("cable"), Connected())
    assert offered(rig) == [id_of("trip-1")] * 3


def test_what_has_no_receipt_is_offered_again_after_its_time(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    accept_all(rig)
    rig.clock.now += 29.0
    rig.agent.poll()
    assert len(offered(rig)) == 1
    rig.clock.now += 2.0
    rig.agent.poll()
    assert offered(rig) == [id_of("trip-1")] * 2


def test_what_has_no_receipt_is_offered_again_after_a_restart(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    accept_all(rig)
    rig.reopen()
    rig.connect()
    assert offered(rig) == [id_of("trip-1")]


def test_breaches_go_one_at_a_time_in_the_order_of_their_trips(rig: Rig) -> None:
    for number in (1, 2, 3):
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    rig.connect()
    accept_all(rig)
    assert offered(rig) == [id_of("trip-1")]
    assert len(offered(rig, "trip")) == 3
    for number in (1, 2, 3):
        assert offered(rig) == [id_of(f"trip-{n}") for n in range(1, number + 1)]
        rig.tell(receipt(id_of(f"trip-{number}")))
        accept_all(rig)
    assert len(offered(rig)) == 3


def test_no_more_than_a_window_is_with_the_broker_at_one_time(rig: Rig) -> None:
    for number in range(30):
        rig.drive(f"trip-{number}", gain=1.0, count=10)
    rig.connect()
    assert len(offered(rig, "trip")) == 20
    accept_all(rig)
    assert len(offered(rig, "trip")) == 30


def test_a_full_outbox_drops_trips_before_breaches_and_says_so(
    tmp_path: Path, bundle: Bundle
) -> None:
    rig = Rig(tmp_path / "small.db", bundle, outbox_messages=3)
    for number in range(4):
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    assert waiting(rig) == [id_of(f"trip-{number}") for number in (1, 2, 3)]
    status = rig.agent.status()
    assert (status.dropped_trips, status.dropped_breaches, status.outbox_depth) == (4, 1, 3)
    rig.state.close()


# ---- what comes down ------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [PARAMETERS, RECEIPT])
@pytest.mark.parametrize("payload", [b"", b"\xff\x00", b"[]", b'{"schema": 2}', b"[" * 90_000])
def test_garbage_is_counted_and_kept_and_the_loop_lives(
    rig: Rig, topic: str, payload: bytes
) -> None:
    rig.connect()
    rig.tell(Received(topic, payload))
    refusal = kept.refusals(rig.state.connection, 1)[0]
    assert (refusal.kind, refusal.payload) == ("message", payload[: kept.KEPT_REFUSAL_BYTES])
    assert refusal.at == rig.clock.now
    assert refusal.reason
    assert rig.agent.status().refused_messages == 1
    rig.drive()
    assert len(offered(rig)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=20), st.binary(max_size=50))
def test_no_message_stops_the_loop(rig: Rig, topic: str, payload: bytes) -> None:
    rig.tell(Received(topic, payload), Received(PARAMETERS, payload), Received(RECEIPT, payload))
    assert rig.agent.twin.revision == 0


def test_refusals_are_kept_in_bounded_number(rig: Rig) -> None:
    for number in range(kept.KEPT_REFUSALS + 20):
        rig.tell(Received(RECEIPT, str(number).encode()))
    rig.agent.say_goodbye()
    found = kept.refusals(rig.state.connection, 10_000)
    assert len(found) == kept.KEPT_REFUSALS
    assert found[0].payload == str(kept.KEPT_REFUSALS + 19).encode()
    assert rig.agent.status().refused_messages == kept.KEPT_REFUSALS + 20


@pytest.mark.parametrize("topic", ["twin/v1/car-2/receipt", "twin/v1/car-2/parameters"])
def test_another_vehicles_topic_changes_nothing(rig: Rig, topic: str) -> None:
    rig.connect()
    rig.drive()
    message = receipt(id_of("trip-1")).payload
    own = signed(revision_for(rig.bundle))
    rig.tell(Received(topic, message if topic.endswith("receipt") else own))
    assert len(waiting(rig)) == 2
    assert rig.agent.twin.revision == 0


def test_a_receipt_addressed_to_another_vehicle_frees_nothing(rig: Rig) -> None:
    rig.drive()
    rig.tell(receipt(id_of("trip-1"), vehicle_id="car-2"))
    assert len(waiting(rig)) == 2
    assert rig.agent.status().refused_messages == 1


def test_a_revision_is_applied_at_once_and_runs_from_the_next_trip_on(rig: Rig) -> None:
    rig.connect()
    samples = list(drive(rig.bundle, "trip-1"))
    for sample in samples[:30]:
        rig.agent.take(sample)
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle))))
    assert rig.agent.twin.revision == 1
    for sample in samples[30:]:
        rig.agent.take(sample)
    rig.agent.driving.end_trip()
    rig.drive("trip-2")
    first, second = (decode(payload, TripSummary) for payload in rig.link.payloads("trip"))
    assert (first.revision, first.breach) == (0, True)
    assert (second.revision, second.breach) == (1, False)
    assert decode(rig.link.payloads("status")[-1], Status).revision == 1


def test_the_verdict_is_acknowledged_with_the_errors_on_the_kept_trace(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle))))
    answer = decode(rig.link.payloads("ack")[0], Acknowledgement)
    assert (answer.verdict, answer.revision) == ("applied", 1)
    assert answer.error_before_v is not None
    assert answer.error_after_v is not None
    assert answer.error_after_v < 0.001
    assert answer.error_before_v > 0.03
    assert rig.agent.is_settled()
    assert rig.agent.statistics.applied == 1
    assert len(rig.agent.statistics.apply_latencies_s) == 1


def test_a_revision_that_worsens_the_trace_is_refused_and_that_is_its_outcome(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle, theta=[0.9, 0.0]))))
    answer = decode(rig.link.payloads("ack")[0], Acknowledgement)
    assert (answer.verdict, answer.reason) == ("refused", "worse_on_trace")
    assert rig.agent.twin.revision == 0
    assert rig.agent.is_settled()
    assert rig.agent.status().refused_messages == 1


def test_a_replaced_battery_is_believed_and_the_old_ones_trace_is_forgotten(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle))))
    cause = Cause(kind="replacement", message_id="0" * 32)
    anew = revision_for(rig.bundle, number=2, theta=[0.9, 0.0], odometer=1e5, cause=cause)
    rig.tell(Received(PARAMETERS, signed(anew)))
    assert rig.agent.twin.revision == 2
    later = revision_for(rig.bundle, number=3, theta=[0.8, 0.0], odometer=1e5 + 1)
    rig.tell(Received(PARAMETERS, signed(later)))  # its own trace is lost, the old one says nothing
    assert rig.agent.twin.revision == 3
    rig.reopen()
    assert rig.agent.twin.revision == 3


def test_a_breach_that_waits_for_its_outcome_waits_on_after_a_replacement(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    cause = Cause(kind="replacement", message_id="0" * 32)
    anew = revision_for(rig.bundle, theta=[0.9, 0.0], odometer=1e5, cause=cause)
    rig.tell(Received(PARAMETERS, signed(anew)))
    assert rig.agent.twin.revision == 1
    assert not rig.agent.is_settled()


@pytest.mark.parametrize("theta", [[1.1, 0.0], [0.9, 0.0]], ids=["applied", "worse"])
def test_the_retained_message_that_comes_again_is_judged_once(rig: Rig, theta: list[float]) -> None:
    rig.connect()
    rig.drive()
    retained = Received(PARAMETERS, signed(revision_for(rig.bundle, theta=theta)))
    rig.tell(retained)
    rig.tell(receipt(*waiting(rig)))
    refused = rig.agent.status().refused_messages
    rig.tell(retained, retained)
    rig.reopen()
    rig.connect()
    rig.tell(retained)
    assert waiting(rig) == []
    assert rig.agent.status().refused_messages == refused


@pytest.mark.parametrize(
    "payload",
    [
        lambda bundle: signed(revision_for(bundle), FOREIGN_KEY),
        lambda bundle: signed(revision_for(bundle, vehicle_id="car-2")),
        lambda bundle: signed(revision_for(bundle, theta=[9.0, 0.0])),
        lambda bundle: signed(revision_for(bundle, schema=2)),
    ],
    ids=["foreign key", "wrong vehicle", "out of bounds", "unknown schema"],
)
def test_a_revision_that_is_not_believed_leaves_the_breach_unanswered(
    rig: Rig, payload: Any
) -> None:
    rig.connect()
    rig.drive()
    rig.tell(Received(PARAMETERS, payload(rig.bundle)))
    assert rig.agent.twin.revision == 0
    assert not rig.agent.is_settled()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle))))
    assert rig.agent.twin.revision == 1


def test_a_restart_restores_the_applied_revision_and_refuses_the_older_one(rig: Rig) -> None:
    rig.connect()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle, number=2))))
    rig.reopen()
    assert rig.agent.twin.revision == 2
    assert rig.agent.twin.estimate.theta.tolist() == [1.1, 0.0]
    rig.connect()
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle, number=1, theta=[1.2, 0.0]))))
    assert rig.agent.twin.revision == 2


@pytest.mark.parametrize("content", [b"", b"torn"])
def test_stored_parameters_that_cannot_be_believed_give_way_to_the_nominal_ones(
    rig: Rig, content: bytes
) -> None:
    with rig.state.transaction() as db:
        kept.write_parameters(db, "trial", content)
    rig.reopen()
    assert rig.agent.twin.revision == 0
    rig.drive(gain=1.0)
    assert len(waiting(rig)) >= 1


# ---- what is said of itself -----------------------------------------------------------------


def test_the_status_tells_what_runs_and_which_breaches_wait_for_an_answer(rig: Rig) -> None:
    rig.drive("trip-1")
    rig.drive("trip-2", odometer=2000.0)
    rig.agent.take(BadRow("x", "why"))
    rig.clock.now = START + 5.5
    rig.connect()
    status = decode(rig.link.payloads("status")[0], Status)
    assert status == Status(
        vehicle_id=VEHICLE,
        online=True,
        agent_version=status.agent_version,
        bundle=rig.bundle.sha256,
        revision=0,
        outbox_depth=4,
        refused_samples=1,
        awaiting=[id_of("trip-1"), id_of("trip-2")],
        question=status.question,
        trips_since_word=2,
        sent_at=START + 5.5,
    )
    rig.tell(receipt(declined=(id_of("trip-1"),)))
    assert rig.agent.status().awaiting == [id_of("trip-2")]


def test_the_status_is_said_again_at_its_interval(rig: Rig) -> None:
    rig.connect()
    for elapsed, said in ((299.0, 1), (301.0, 2), (302.0, 2)):
        rig.clock.now = START + elapsed
        rig.agent.poll()
        assert len(rig.link.payloads("status")) == said


def test_a_clean_end_leaves_the_word_offline_behind(rig: Rig) -> None:
    rig.agent.say_goodbye()
    assert rig.link.sent == []
    rig.connect()
    rig.drive()
    rig.agent.say_goodbye()
    last = decode(rig.link.payloads("status")[-1], Status)
    assert (last.online, last.outbox_depth) == (False, 2)


# ---- trips ----------------------------------------------------------------------------------


def test_finished_trips_are_passed_over_when_a_file_is_replayed(rig: Rig) -> None:
    rig.drive("trip-1")
    rig.drive("trip-2", gain=1.0)
    before = waiting(rig)
    rig.reopen()
    rig.drive("trip-1")
    rig.drive("trip-2", gain=1.0)
    rig.drive("trip-3", gain=1.0)
    assert waiting(rig) == [*before, id_of("trip-3", "trip")]
    assert rig.agent.statistics.trips == 1


def test_a_trip_without_an_id_is_told_apart_by_a_gap(rig: Rig) -> None:
    for start in (START, START + 60 * 60 + 1000):
        for sample in drive(rig.bundle, None, start=start):
            rig.agent.take(sample)
    rig.agent.driving.end_trip()
    assert rig.agent.statistics.trips == 2


def test_a_clock_that_was_set_back_begins_a_new_trip_instead_of_refusing_the_rest(
    rig: Rig,
) -> None:
    for sample in drive(rig.bundle, None):
        rig.agent.take(sample)
    for sample in drive(rig.bundle, None, start=START - 86_400, odometer=2000.0):
        rig.agent.take(sample)
    rig.agent.driving.end_trip()
    assert rig.agent.statistics.trips == 2
    assert rig.agent.status().refused_samples == 0


def test_a_short_trip_is_counted_and_not_reported(rig: Rig) -> None:
    rig.drive(count=9)
    assert waiting(rig) == []
    assert kept.counters(rig.state.connection)["short_trips"] == 1
    rig.drive(count=10)
    assert len(waiting(rig)) == 2


@pytest.mark.parametrize("trip_id", ["trip-1", None])
@pytest.mark.parametrize("place", [0, 30, 59])
@pytest.mark.parametrize(
    "changes",
    [
        {"time_s": math.nan},
        {"time_s": math.inf},
        {"time_s": 1e20},
        {"time_s": -1.0},
        {"odometer": math.nan},
        {"odometer": math.inf},
        {"odometer": -1.0},
        {"voltage_v": math.nan},
        {"signals": {}},
        {"trip_id": "a/b"},
    ],
    ids=str,
)
def test_an_unbelievable_sample_is_counted_and_the_trip_is_what_it_was(
    rig: Rig, place: int, trip_id: str | None, changes: dict[str, Any]
) -> None:
    samples: list[Sample] = list(drive(rig.bundle, trip_id))
    samples.insert(place, replace(samples[place], **changes))
    for item in samples:
        if rig.agent.driving.ends_trip(item):
            rig.agent.driving.end_trip()
        rig.agent.take(item)
    rig.agent.driving.end_trip()
    payload = outbox.payload(rig.state.connection, 2)
    summary = decode(payload, TripSummary)
    of_no_trip = place == 0 and header_problem(samples[0]) is not None
    refused = 0 if of_no_trip else 1
    assert (summary.samples, summary.refused_samples, summary.breach) == (60, refused, True)
    assert summary.started_at == START
    assert rig.agent.status().refused_samples == 1


def test_a_bad_row_is_counted_with_its_trip_and_kept_with_its_reason(rig: Rig) -> None:
    samples = list(drive(rig.bundle, gain=1.0))
    items: list[Item] = [*samples[:30], BadRow("1;2;\ud800", "no number"), *samples[30:]]
    for item in items:
        rig.agent.take(item)
    rig.agent.driving.end_trip()
    summary = decode(outbox.payload(rig.state.connection, 1), TripSummary)
    assert (summary.samples, summary.refused_samples) == (60, 1)
    assert kept.refusals(rig.state.connection, 1)[0].reason == "no number"


def test_kept_traces_and_finished_trips_are_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_TRIP_IDS", 5)
    for number in range(kept.KEPT_TRACES + 5):
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    db = rig.state.connection
    assert db.execute("SELECT COUNT(*) FROM kept_trace").fetchone()[0] == kept.KEPT_TRACES
    assert db.execute("SELECT COUNT(*) FROM finished_trip").fetchone()[0] == 5
    assert len(rig.agent.status().awaiting) == 16
    assert len(rig.agent._kept_at) <= kept.KEPT_TRACES


def test_intervals_do_not_follow_a_wall_clock_that_jumps(rig: Rig) -> None:
    rig.connect()
    rig.drive()
    accept_all(rig)
    rig.clock.jumped = -365 * 86_400.0
    rig.clock.now += 31.0
    rig.agent.poll()
    assert len(offered(rig)) == 2
    rig.clock.now += 300.0
    rig.agent.poll()
    assert len(rig.link.payloads("status")) == 2
    assert decode(rig.link.payloads("status")[-1], Status).sent_at == START + 331.0


def test_the_wait_for_a_receipt_grows_while_none_comes_and_is_short_again_after_one(
    rig: Rig,
) -> None:
    rig.connect()
    rig.drive()
    offers = []
    for _second in range(400):
        rig.clock.now += 1.0
        accept_all(rig)
        rig.agent.poll()
        offers.append(len(offered(rig)))
    assert (offers[29], offers[31], offers[95]) == (1, 2, 3)
    assert offers[-1] == 4  # at 0, 31, about 92 and about 213 s
    rig.tell(receipt(id_of("trip-1", "trip")))
    rig.clock.now += 31.0
    rig.agent.poll()
    assert len(offered(rig)) == 5


def test_a_car_that_falls_silent_has_ended_its_trip(rig: Rig) -> None:
    for sample in drive(rig.bundle, None):
        rig.agent.take(sample)
    rig.agent.driving.end_silent_trip(300.0)
    assert kinds(rig) == []
    rig.agent.driving.end_silent_trip(301.0)
    assert kinds(rig) == ["breach", "trip"]


def test_a_trip_that_the_source_names_goes_on_when_the_source_does(rig: Rig) -> None:
    samples = list(drive(rig.bundle, "trip-1"))
    for sample in samples[:30]:
        rig.agent.take(sample)
    rig.agent.driving.end_silent_trip(10_000.0)
    for sample in samples[30:]:
        rig.agent.take(sample)
    rig.agent.driving.end_trip()
    assert decode(outbox.payload(rig.state.connection, 2), TripSummary).samples == len(samples)


def test_a_clock_that_begins_again_at_every_key_on_hides_no_trip(rig: Rig) -> None:
    for odometer in (1000.0, 1300.0, 1600.0):
        for sample in drive(rig.bundle, None, odometer=odometer, gain=1.0):
            rig.agent.take(sample)
        rig.agent.driving.end_trip()
    assert kinds(rig) == ["trip"] * 3
    assert rig.agent.statistics.passed_over == 0


def test_a_disk_that_cannot_be_read_does_not_stop_the_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    rig.connect()
    with monkeypatch.context() as broken:
        for name in ("waiting", "size"):
            broken.setattr(outbox, name, fails)
        broken.setattr(kept, "is_finished", fails)
        rig.drive()
        rig.clock.now += 400.0
        rig.agent.poll()
    rig.clock.now += 400.0
    rig.agent.poll()
    assert kinds(rig) == ["breach", "trip"]


def test_a_signed_revision_that_cannot_be_read_is_answered_where_its_number_can(rig: Rig) -> None:
    rig.connect()
    future = encode_revision(revision_for(rig.bundle, schema=2, number=4))
    rig.tell(Received(PARAMETERS, encode(sign(future, KEY))))
    answer = decode(rig.link.payloads("ack")[0], Acknowledgement)
    assert (answer.verdict, answer.reason, answer.revision) == ("refused", "unknown_schema", 4)
    assert answer.revision_hash == revision_hash(future)
    rig.tell(Received(PARAMETERS, encode(sign(b'{"schema":2}', KEY))))
    assert len(rig.link.payloads("ack")) == 1


def test_a_parameter_that_drifts_to_its_bound_stays_there(rig: Rig) -> None:
    rig.connect()
    upper = rig.bundle.manifest.parameters[0].upper
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle, rate=[0.01, 0.0]))))
    far = extrapolate(rig.agent.twin.estimate, rig.bundle.manifest, 900_000.0)
    assert upper - 1e-6 < far.theta[0] < upper
