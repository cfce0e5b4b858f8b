"""What vehicles say of the next trip, and what operators order, leads on in the chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.api.access import Context
from cloud.calibration.revising import Author
from cloud.errors import RollBackError
from cloud.location import PostgresUrl
from cloud.roles.worker import Worker
from cloud.store import roll_back_orders, verification
from cloud.store.tables import RevisionRow, RollBackOrder, Vehicle
from cloud.store.verification import Verified
from common.messages import Acknowledgement, SignedRevision, decode
from common.revision import decode_revision
from common.signing import key_id, verify
from tests.cloud_doubles import NOW, Insides, serving, write_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path, database)
    yield made
    made.store.close()


def drive(inside: Insides, *trips: int) -> None:
    """A breach on each of these trips, and its revision applied."""
    car = inside.car()
    for trip in trips:
        running = inside.rows()[-1].number if inside.rows() else 0
        inside.take(car.breach(trip, revision=running))
        inside.work()
        newest = inside.rows()[-1]
        inside.take(car.acknowledgement(newest, "applied"), car.status(revision=newest.number))
    inside.work()


def fell_back(inside: Insides, number: int) -> Acknowledgement:
    row = inside.rows()[number - 1]
    why = {"reason": "worse_on_next_trip", "error_before_v": 0.01, "error_after_v": 0.2}
    return inside.car().acknowledgement(row, "refused", message_id="c" * 32, **why)


def verdict(row: RevisionRow) -> tuple[str | None, str | None, bool]:
    return row.verdict, row.verdict_reason, row.confirmed_at is not None


# ---- the word on the next trip -----------------------------------------------------------------


def test_a_revision_that_was_confirmed_is_applied_and_says_so(inside: Insides) -> None:
    drive(inside, 5)
    told = inside.car().acknowledgement(inside.rows()[0], "confirmed", reason="")
    inside.take(told, told)
    [row] = inside.rows()
    assert verdict(row) == ("applied", None, True)
    assert (row.next_trip_error_before_v, row.next_trip_error_after_v) == (0.06, 0.01)


def test_after_a_fall_the_cloud_goes_on_from_what_drives(inside: Insides) -> None:
    drive(inside, 5, 10)
    inside.take(fell_back(inside, 2), inside.car().breach(11, revision=2))
    inside.work()
    rows = inside.rows()
    assert verdict(rows[1]) == ("refused", "worse_on_next_trip", False)
    assert decode_revision(rows[2].content).base == 1
    assert decode_revision(rows[2].content).parent_hash == rows[1].hash


def test_what_fell_back_is_not_sent_again(inside: Insides) -> None:
    drive(inside, 5, 10)
    inside.take(fell_back(inside, 2))
    inside.publisher.sent.clear()
    for _ in range(3):
        inside.take(inside.car().status(revision=1))
        inside.worker.reconnected()
        inside.work()
    assert inside.publisher.numbers == []


def test_words_that_come_late_or_in_another_order_end_the_same(inside: Insides) -> None:
    drive(inside, 5, 10)
    row, car = inside.rows()[1], inside.car()
    applied = car.acknowledgement(row, "applied")
    worse = car.acknowledgement(row, "refused")
    inside.take(fell_back(inside, 2), applied, worse, fell_back(inside, 2), applied)
    assert verdict(inside.rows()[1]) == ("refused", "worse_on_next_trip", False)
    [vehicle] = inside.table(Vehicle)
    assert (vehicle.calibrations, vehicle.failures) == (1, 1)


def test_a_confirmation_that_overtakes_the_application_is_one(inside: Insides) -> None:
    inside.take(inside.car().breach(5))
    inside.work()
    row, car = inside.rows()[0], inside.car()
    confirmed = car.acknowledgement(row, "confirmed", reason="")
    inside.take(confirmed, car.acknowledgement(row, "applied"))
    assert verdict(inside.rows()[0]) == ("applied", None, True)


# ---- roll-back -----------------------------------------------------------------------------------


def order(inside: Insides, to: int, vehicle_id: str = "car") -> RollBackOrder:
    wanted = RollBackOrder(
        vehicle_id=vehicle_id, to_revision=to, ordered_by="desk", why="bad sensor", ordered_at=NOW
    )
    with inside.store.write() as db:
        placed = roll_back_orders.place(db, wanted)
    inside.worker.wake()
    return placed


def test_a_roll_back_is_the_old_content_under_a_new_number(inside: Insides) -> None:
    drive(inside, 5, 10, 15)
    order(inside, to=1)
    inside.work()
    old, made = (decode_revision(inside.rows()[i].content) for i in (0, 3))
    assert (made.number, made.base, made.cause.kind) == (4, 1, "roll_back")
    assert (made.cause.returns_to, made.cause.ordered_by) == (1, "desk")
    same = ("theta", "rate", "covariance", "odometer", "bundle", "discrepancy_std_v")
    assert [getattr(made, f) for f in same] == [getattr(old, f) for f in same]
    assert inside.publisher.numbers[-1] == 4
    with inside.store.read() as db:
        [found] = verification.verify_all(db, verification.remembered_keys(db))
    assert found == Verified("car", 4, inside.rows()[3].hash)


def test_the_next_breach_goes_on_from_what_was_rolled_back_to(inside: Insides) -> None:
    drive(inside, 5, 10)
    order(inside, to=1)
    inside.work()
    drive(inside, 16)
    assert decode_revision(inside.rows()[3].content).base == 3


def test_an_order_is_carried_out_once(inside: Insides) -> None:
    drive(inside, 5, 10)
    first, second = order(inside, to=1), order(inside, to=1)
    assert first.id == second.id
    inside.work()
    inside.start()
    inside.work()
    assert len(inside.rows()) == 3
    [kept] = inside.table(RollBackOrder)
    assert (kept.revision, kept.problem) == (3, None)


def test_an_order_that_time_overtook_is_settled_with_its_reason(inside: Insides) -> None:
    drive(inside, 5, 10)
    order(inside, to=1)
    worse = inside.car().acknowledgement(inside.rows()[0], "refused", reason="worse_on_next_trip")
    inside.take(worse)
    inside.work()
    [kept] = inside.table(RollBackOrder)
    assert (kept.revision, "refused it" in kept.problem) == (None, True)
    assert len(inside.rows()) == 2


@pytest.mark.parametrize(
    ("to", "why"), [(2, "newest one that stands"), (7, "no such revision"), (1, "refused it")]
)
def test_a_roll_back_that_leads_nowhere_is_refused(inside: Insides, to: int, why: str) -> None:
    drive(inside, 5, 10)
    if why == "refused it":
        row = inside.rows()[0]
        inside.take(inside.car().acknowledgement(row, "refused", reason="worse_on_next_trip"))
    with pytest.raises(RollBackError, match=why):
        order(inside, to=to)


def test_an_operator_orders_it_over_the_api(inside: Insides) -> None:
    drive(inside, 5, 10)
    context = Context(inside.store, inside.catalogue, lambda: NOW, {}, inside.worker.wake)
    with serving(context) as client:
        path = "/api/v1/vehicles/car/roll-back"
        answer = client.post(path, json={"by": "desk", "to": 1, "why": "bad sensor"})
        assert (answer.status_code, answer.json()["to_revision"]) == (202, 1)
        inside.work()
        shown = client.get("/api/v1/vehicles/car/revisions/3").json()
        assert (shown["cause"]["returns_to"], shown["cause"]["why"]) == (1, "bad sensor")
        assert client.post(path, json={"by": "desk", "to": 9, "why": "?"}).status_code == 409
        assert client.post(
            "/api/v1/vehicles/x/roll-back", json={"by": "d", "to": 1, "why": "?"}
        ).is_error


# ---- another key ---------------------------------------------------------------------------------


def test_what_was_signed_by_a_key_of_before_is_signed_again_and_its_content_stays(
    inside: Insides,
) -> None:
    drive(inside, 5)
    new = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
    author = Author(new, "0.1.0")
    calibrations = inside.worker._calibrations
    inside.worker = Worker(inside.store, calibrations, inside.publisher, lambda: inside.now, author)
    inside.worker.republish({"car"})
    inside.work()
    first, again = (
        decode(sent.payload, SignedRevision) for sent in inside.publisher.of_kind("parameters")
    )
    assert first.revision == again.revision
    public = new.public_key()
    assert verify(again, {key_id(public): public}) == inside.rows()[0].content
    assert msgspec.structs.replace(again, key_id=first.key_id) != first
