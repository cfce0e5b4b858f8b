"""Ingest: committed before acknowledged, one fact however often it comes, never stopped."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from cloud.intake import ingest
from cloud.intake.interpretation import Delivery
from cloud.location import PostgresUrl
from cloud.mqtt.protocol import Inbox
from cloud.store import facts, quarantined
from cloud.store.tables import Breach, Quarantine, Trip, Vehicle
from common.messages import MAX_PAYLOAD_BYTES, Acknowledgement, Declined, TripSummary, encode
from tests.cloud_doubles import FailingCommits, Insides, delivery, write_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    inside = Insides(tmp_path, bundle_path, database)
    yield inside
    inside.store.close()


def disk_error() -> OperationalError:
    return OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))


def reasons(inside: Insides) -> list[str]:
    return [f"{row.error}: {row.reason}" for row in inside.table(Quarantine)]


def test_a_committed_batch_is_acknowledged_and_each_vehicle_gets_one_receipt(
    inside: Insides,
) -> None:
    a, b = inside.car("a"), inside.car("b")
    inside.take(a.trip(1), b.trip(1), a.trip(2), a.status())
    receipts = {sent.topic: sent.receipt for sent in inside.publisher.of_kind("receipt")}
    assert receipts["twin/v1/a/receipt"].message_ids == [
        a.trip(1).message_id,
        a.trip(2).message_id,
    ]
    assert receipts["twin/v1/b/receipt"].message_ids == [b.trip(1).message_id]
    assert len(receipts) == 2
    assert inside.publisher.acknowledged == [1, 2, 3, 4]
    assert not any(sent.retain for sent in inside.publisher.sent)


def test_while_a_commit_fails_nothing_is_acknowledged_and_afterwards_nothing_is_lost(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    commits = FailingCommits(inside.store, disk_error(), times=3)

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(len(inside.publisher.acknowledged) + len(inside.publisher.sent))
            return False

    inside.ingest.process([delivery(inside.car().trip(1), 7)], Stop())
    assert seen == [0, 0, 0]
    assert commits.left == 0
    assert len(inside.table(Trip)) == 1
    assert inside.publisher.acknowledged == [7]


def test_a_batch_that_cannot_be_committed_before_the_end_stays_with_the_broker(
    inside: Insides,
) -> None:
    commits = FailingCommits(inside.store, disk_error(), times=1000)
    inside.stop.set()
    inside.take(inside.car().trip(1))
    commits.close()
    assert inside.publisher.acknowledged == []
    assert inside.publisher.sent == []
    assert inside.table(Trip) == []


def test_a_duplicate_is_one_fact_and_gets_its_receipt_again(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.trip(1), car.trip(1), car.breach(1))
    inside.take(car.trip(1), car.breach(1))
    assert len(inside.table(Trip)) == len(inside.table(Breach)) == 1
    receipts = [sent.receipt for sent in inside.publisher.of_kind("receipt")]
    wanted = [car.trip(1).message_id, car.breach(1).message_id]
    assert [receipt.message_ids for receipt in receipts] == [wanted, wanted]
    assert inside.publisher.acknowledged == [1, 2, 3, 1, 2]
    vehicle = inside.table(Vehicle)[0]
    assert (vehicle.trips, vehicle.breaches) == (1, 1)


def test_the_puback_waits_for_the_receipt_to_be_with_the_broker(inside: Insides) -> None:
    publisher = inside.publisher
    publisher.confirms = False
    inside.take(inside.car("a").trip(1), inside.car("b").trip(1))
    inside.take(delivery(inside.car("a").status(), 9))
    assert publisher.acknowledged == []
    first, second = publisher.waiting
    first()
    assert publisher.acknowledged == []
    second()
    assert publisher.acknowledged == [1, 2, 9]


def test_without_a_connection_the_batch_is_left_to_the_broker_and_blocks_nobody(
    inside: Insides,
) -> None:
    car = inside.car()
    inside.publisher.connected = False
    inside.take(car.trip(1))
    inside.publisher.connected = True
    assert inside.publisher.acknowledged == []
    inside.take(car.trip(1), car.trip(2))
    assert inside.publisher.acknowledged == [1, 2]
    assert len(inside.table(Trip)) == 2


def test_a_vehicle_speaks_for_itself_alone(inside: Insides) -> None:
    foreign = Delivery("twin/v1/other/trip", encode(inside.car().trip(1)), mid=1)
    inside.take(foreign)
    assert inside.table(Trip) == []
    assert "ForeignVehicleError" in reasons(inside)[0]
    # who published it may let go of it; the vehicle that it names hears nothing
    assert [sent.topic for sent in inside.publisher.of_kind("receipt")] == ["twin/v1/other/receipt"]


def test_the_same_message_id_from_another_vehicle_hides_nothing(inside: Insides) -> None:
    victim, thief = inside.car("victim"), inside.car("thief")
    stolen = victim.breach(1).message_id
    inside.take(thief.breach(1, message_id=stolen), victim.breach(1))
    assert {row.vehicle_id for row in inside.table(Breach)} == {"victim", "thief"}


def broken_trace(inside: Insides, **changes: object) -> bytes:
    breach = inside.car().breach(1)
    return encode(
        msgspec.structs.replace(breach, trace=msgspec.structs.replace(breach.trace, **changes))
    )


BAD_BREACHES: dict[str, tuple[Callable[[Insides], bytes], str]] = {
    "garbage": (lambda _: b"\x00\xffgarbage", "MalformedMessageError"),
    "empty": (lambda _: b"", "MalformedMessageError"),
    "too deep": (lambda _: b'{"schema":1,"x":' + b"[" * 5000, "MalformedMessageError"),
    "too big": (lambda _: b"x" * (128 * 1024 + 1), "bytes are too many"),
    "another schema": (
        lambda i: encode(i.car().breach(1, schema=99)),
        "UnknownSchemaError",
    ),
    "NaN": (
        lambda i: encode(i.car().breach(1)).replace(b'"error_v":0.05', b'"error_v":NaN'),
        "MalformedMessageError",
    ),
    "beyond float": (
        lambda i: encode(i.car().breach(1)).replace(b'"error_v":0.05', b'"error_v":1e999'),
        "MalformedMessageError",
    ),
    "negative odometer": (lambda i: encode(i.car().breach(1, odometer=-1.0)), "odometer"),
    "an odometer that no vehicle reaches": (
        lambda i: encode(msgspec.structs.replace(i.car().breach(1), odometer=1e200)),
        "odometer",
    ),
    "time that stands": (
        lambda i: broken_trace(i, time_s=[0.0] * 40),
        "do not increase",
    ),
    "columns of other lengths": (
        lambda i: broken_trace(i, voltage_v=[4.0] * 39),
        "other lengths",
    ),
    "a feature missing": (lambda i: broken_trace(i, features=[1.0]), "feature columns"),
    "an implausible voltage": (
        lambda i: broken_trace(i, voltage_v=[400.0] * 40),
        "cell_voltage_v outside",
    ),
    "a revision that nobody counts to": (
        lambda i: encode(i.car().breach(1, revision=2**63)),
        "$.revision",
    ),
}


@pytest.mark.parametrize("name", BAD_BREACHES)
def test_a_bad_breach_is_quarantined_with_its_reason_and_the_others_of_its_batch_are_not(
    inside: Insides, name: str
) -> None:
    make, expected = BAD_BREACHES[name]
    payload = make(inside)
    inside.take(
        inside.car().trip(1),
        Delivery("twin/v1/car/breach", payload, mid=2),
        inside.car().trip(2),
    )
    [row] = inside.table(Quarantine)
    assert expected in f"{row.error}: {row.reason}"
    assert (row.topic, row.payload_bytes) == ("twin/v1/car/breach", len(payload))
    assert row.payload == payload[:MAX_PAYLOAD_BYTES]
    assert inside.table(Breach) == []
    assert len(inside.table(Trip)) == 2
    assert len(inside.publisher.acknowledged) == 3


@pytest.mark.parametrize(
    "name", ["twin/v1/car/parameters", "twin/v1/car/nonsense", "twin/v1/#/trip", "x", "ü/€"]
)
def test_a_topic_that_is_none_of_ours_is_quarantined(inside: Insides, name: str) -> None:
    inside.take(Delivery(name, b"{}", mid=1))
    assert "TopicError" in reasons(inside)[0]


def test_a_trip_whose_odometer_runs_backwards_is_quarantined(inside: Insides) -> None:
    inside.take(inside.car().trip(1, odometer_end=0.0))
    assert "backwards" in reasons(inside)[0]


def test_a_message_that_only_the_database_refuses_is_quarantined_alone(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract bounds every number: what it lets pass, and a column does not, is made here."""
    car = inside.car()
    trips = facts.Recorder._record_trip

    def with_one_too_big(recorder: facts.Recorder, vehicle: Vehicle, trip: TripSummary) -> bool:
        samples = 2**63 if trip.trip_id == "trip2" else trip.samples
        return trips(recorder, vehicle, msgspec.structs.replace(trip, samples=samples))

    monkeypatch.setattr(facts.Recorder, "_record_trip", with_one_too_big)
    inside.take(car.trip(1), car.trip(2), car.trip(3))
    assert sorted(row.trip_id for row in inside.table(Trip)) == ["trip1", "trip3"]
    assert "cannot be stored" in reasons(inside)[0]
    assert inside.publisher.acknowledged == [1, 2, 3]


def test_the_quarantine_is_bounded_and_forgets_the_oldest(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantined, "ROWS", 3)
    inside.take(*(Delivery("x", str(i).encode(), mid=i) for i in range(10)))
    assert [row.payload for row in inside.table(Quarantine)] == [b"7", b"8", b"9"]


def test_an_acknowledgement_is_recorded_once_and_gets_a_receipt(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.breach(1))
    inside.work()
    [row] = inside.rows()
    ack = car.acknowledgement(row, "applied")
    inside.take(ack)
    inside.take(ack)
    [row] = inside.rows()
    assert (row.verdict, row.verdict_reason, row.trace_error_after_v) == ("applied", None, 0.01)
    last = inside.publisher.of_kind("receipt")[-1].receipt
    assert last.message_ids == [ack.message_id]


def test_an_applied_revision_is_not_unsaid_but_a_refused_one_may_be_applied(
    inside: Insides,
) -> None:
    car = inside.car()
    inside.take(car.breach(1))
    inside.work()
    [row] = inside.rows()
    for verdict, expected in (
        ("refused", "refused"),
        ("applied", "applied"),
        ("refused", "applied"),
    ):
        inside.take(car.acknowledgement(row, verdict))
        assert inside.rows()[0].verdict == expected


@pytest.mark.parametrize("changes", [{"revision": 9}, {"revision_hash": "0" * 64}])
def test_a_verdict_on_a_revision_never_made_is_quarantined(
    inside: Insides, changes: dict[str, object]
) -> None:
    car = inside.car()
    inside.take(car.breach(1))
    inside.work()
    ack: Acknowledgement = car.acknowledgement(inside.rows()[0], "applied", **changes)
    inside.take(ack)
    assert "UnknownRevisionError" in reasons(inside)[0]
    assert inside.rows()[0].verdict is None


def test_a_retained_status_does_not_make_a_vehicle_seem_alive(inside: Insides) -> None:
    car = inside.car()
    inside.take(delivery(car.status(), 1, retained=True))
    assert inside.table(Vehicle)[0].last_seen_at is None
    inside.take(car.status(outbox_depth=3))
    vehicle = inside.table(Vehicle)[0]
    assert (vehicle.last_seen_at, vehicle.outbox_depth) == (inside.now, 3)


def test_a_late_trip_does_not_turn_the_odometer_back(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.trip(5), car.trip(2))
    vehicle = inside.table(Vehicle)[0]
    assert (vehicle.odometer, vehicle.last_trip_error_v) == (5320.0, 0.025)


def test_the_run_loop_ends_at_the_sentinel_after_handling_what_came_before(
    inside: Insides,
) -> None:
    inbox: Inbox = queue.Queue()
    for item in (delivery(inside.car().trip(1), 1), Delivery("x", b"", mid=2), None):
        inbox.put(item)
    inside.ingest.run(inbox, inside.stop)
    assert inside.publisher.acknowledged == [1, 2]


def test_an_awaiting_vehicle_hears_again_why_its_breach_was_declined(inside: Insides) -> None:
    car = inside.car()
    late = car.breach(1)
    inside.take(car.breach(2))
    inside.work()
    inside.take(late)
    inside.work()
    inside.publisher.sent.clear()
    inside.take(car.status(revision=1, awaiting=[late.message_id, "0" * 32]))
    [receipt] = [sent.receipt for sent in inside.publisher.of_kind("receipt")]
    assert receipt.message_ids == []
    assert receipt.declined == [Declined(late.message_id, receipt.declined[0].reason)]
    assert "newer revision" in receipt.declined[0].reason


def test_what_will_be_refused_for_ever_gets_its_receipt_so_that_the_vehicle_goes_on(
    inside: Insides,
) -> None:
    bad, good = inside.car().breach(1, odometer=-1.0), inside.car().breach(2)
    inside.take(Delivery("twin/v1/car/breach", encode(bad), mid=1), good)
    [receipt] = [sent.receipt for sent in inside.publisher.of_kind("receipt")]
    assert set(receipt.message_ids) == {bad.message_id, good.message_id}
    assert [declined.message_id for declined in receipt.declined] == [bad.message_id]
    assert "odometer" in receipt.declined[0].reason


def test_a_message_of_a_future_schema_waits_on_the_vehicle_for_software_that_reads_it(
    inside: Insides,
) -> None:
    inside.take(Delivery("twin/v1/car/breach", encode(inside.car().breach(1, schema=2)), mid=1))
    assert "UnknownSchemaError" in reasons(inside)[0]
    assert inside.publisher.of_kind("receipt") == []


def test_the_same_refused_message_is_one_row_that_counts(inside: Insides) -> None:
    for moment in (1.0, 2.0, 3.0):
        inside.now = moment
        inside.take(Delivery("twin/v1/car/trip", b"garbage", mid=1))
    inside.take(Delivery("twin/v1/car/trip", b"other garbage", mid=1))
    rows = [(row.payload, row.times, row.received_at) for row in inside.table(Quarantine)]
    assert rows == [(b"garbage", 3, 3.0), (b"other garbage", 1, 3.0)]


def test_a_breach_of_a_bundle_that_is_not_known_yet_is_kept_until_it_is(
    tmp_path: Path, inside: Insides, database: PostgresUrl | None
) -> None:
    later = Insides(tmp_path, write_bundle(tmp_path / "other", "other"), database)
    breach = later.car().breach(5)
    later.store.close()
    inside.take(breach)
    inside.work()
    assert inside.publisher.of_kind("receipt")[0].receipt.message_ids == [breach.message_id]
    assert (inside.breach_states(), inside.rows()) == ({breach.trip_id: "pending"}, [])
    later = Insides(tmp_path, tmp_path / "other", database)
    later.work()
    assert (later.breach_states(), len(later.rows())) == ({breach.trip_id: "calibrated"}, 1)
    later.store.close()


def test_the_last_will_says_offline_and_takes_nothing_back(inside: Insides) -> None:
    car = inside.car()
    inside.take(car.status(revision=7, outbox_depth=9, dropped_trips=5, sent_at=1.0))
    inside.take(car.status(online=False, sent_at=0.0))
    [vehicle] = inside.table(Vehicle)
    assert vehicle.online is False
    assert (vehicle.revision, vehicle.outbox_depth, vehicle.dropped_trips) == (7, 9, 5)


def test_the_same_trip_under_another_bundle_is_declined_not_left_without_an_answer(
    inside: Insides,
) -> None:
    breach = inside.car().breach(5)
    inside.take(breach)
    inside.take(msgspec.structs.replace(breach, bundle="ab" * 32))
    assert "reported before, with bundle" in inside.publisher.declined[breach.message_id]
    assert len(inside.table(Breach)) == 1


class Arriving(queue.Queue[Delivery | None]):
    """An inbox into which another delivery comes whenever somebody waits for one."""

    def __init__(self, waiting: int, coming: int) -> None:
        super().__init__()
        self.coming = coming
        for mid in range(waiting):
            self.put(Delivery("t", b"", mid=mid))

    def get(self, block: bool = True, timeout: float | None = None) -> Delivery | None:  # noqa: FBT001, FBT002
        if block and timeout is not None and self.empty():
            if not self.coming:
                raise queue.Empty
            self.coming -= 1
            self.put(Delivery("t", b""))
        return super().get(block, timeout)


@pytest.mark.parametrize(
    ("waiting", "coming", "gathering_s", "taken"),
    [
        (3, 5, 0.0, 3),  # idle: what is there, at once
        (3, 5, 60.0, 8),  # busy: also what comes, until nothing does
        (3, 500, 60.0, ingest.GATHERED),  # and no more than a broker hands over
        (150, 500, 60.0, 150),  # what is there is always taken
        (500, 0, 60.0, ingest.BATCH),
    ],
)
def test_a_busy_ingest_waits_for_a_larger_batch_and_an_idle_one_for_nothing(
    waiting: int, coming: int, gathering_s: float, taken: int
) -> None:
    batch, is_last = ingest._next_batch(Arriving(waiting, coming), gathering_s)
    assert (len(batch), is_last) == (taken, False)
