"""History replayed from a revision on is a new branch at the end of the chain; a pin holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.audit import reproduction
from cloud.calibration.replays import SUPERSEDED
from cloud.errors import PinError, RecalibrationError, RollBackError
from cloud.location import PostgresUrl
from cloud.store import (
    battery_orders,
    pins,
    recalibration_orders,
    revisions,
    roll_back_orders,
    verification,
    waiting,
)
from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.lanes import lane_of
from cloud.store.tables import BatteryOrder, RollBackOrder
from cloud.store.verification import Verified
from common.revision import decode_revision
from tests.cloud_doubles import NOW, Insides, write_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """Breaches at 1000, 3000 and 5000 km were calibrated; those at 2000 and 4000 came too late."""
    made = Insides(tmp_path, bundle_path, database)
    made.take(made.car().status())
    for number, trip in enumerate((1, 3, 5)):
        breach(made, trip, number)
    for trip in (2, 4):
        breach(made, trip, 3)
    assert sorted(made.breach_states().values()) == ["calibrated"] * 3 + ["declined"] * 2
    yield made
    made.store.close()


def breach(inside: Insides, trip: int, running: int) -> None:
    inside.take(inside.car().breach(trip, revision=running))
    inside.work()


def order(inside: Insides, start: int) -> RecalibrationOrder:
    wanted = RecalibrationOrder(
        vehicle_id="car", from_revision=start, ordered_by="desk", why="a gap", ordered_at=NOW
    )
    with inside.store.write() as db:
        return recalibration_orders.place(db, wanted)


def work(inside: Insides) -> None:
    inside.worker.wake()
    inside.work()


def pinned(inside: Insides, to: int) -> Pin:
    wanted = Pin(vehicle_id="car", to_revision=to, ordered_by="desk", why="odd", ordered_at=NOW)
    with inside.store.write() as db:
        return pins.place(db, wanted)


def test_late_breaches_count_too_and_only_the_last_revision_is_sent(inside: Insides) -> None:
    before = list(inside.publisher.numbers)
    order(inside, 1)
    work(inside)
    made = inside.rows()[3:]
    contents = [decode_revision(row.content) for row in made]
    assert [one.odometer for one in contents] == sorted(one.odometer for one in contents)
    assert {2000.0, 4000.0} & {one.odometer for one in contents}
    assert contents[0].base == 1
    assert [one.base for one in contents[1:]] == [one.number for one in contents[:-1]]
    assert {one.cause.kind for one in contents} == {"recalibration"}
    assert {(one.cause.ordered_by, one.cause.why, one.cause.returns_to) for one in contents} == {
        ("desk", "a gap", 1)
    }
    assert inside.publisher.numbers[len(before) :] == [made[-1].number]
    assert [row.verdict_reason for row in made] == [SUPERSEDED] * (len(made) - 1) + [None]
    [kept] = inside.table(RecalibrationOrder)
    assert (kept.revision, kept.replayed, kept.problem) == (made[-1].number, 4, None)


def test_the_chain_holds_and_every_step_comes_again_to_the_last_byte(inside: Insides) -> None:
    order(inside, 0)
    work(inside)
    with inside.store.read() as db:
        [found] = verification.verify_all(db, verification.remembered_keys(db))
        assert found == Verified("car", len(inside.rows()), inside.rows()[-1].hash)
        assert {row.kind for row in inside.rows()} == {"breach", "recalibration"}
        for row in inside.rows():
            assert reproduction.reproduce(db, inside.catalogue, row).differences == []


def test_a_refused_recalibration_leaves_what_stood_before(inside: Insides) -> None:
    order(inside, 1)
    work(inside)
    inside.take(inside.car().acknowledgement(inside.rows()[-1], "refused"))
    with inside.store.read() as db:
        standing = revisions.newest_standing(db, "car")
    assert standing is not None
    assert standing.number == 3


def test_the_next_breach_goes_on_from_the_new_branch(inside: Insides) -> None:
    order(inside, 1)
    work(inside)
    newest = inside.rows()[-1].number
    breach(inside, 7, newest)
    assert decode_revision(inside.rows()[-1].content).base == newest


def test_the_same_order_again_while_it_waits_is_the_same_order(inside: Insides) -> None:
    assert order(inside, 1).id == order(inside, 1).id


@pytest.mark.parametrize(
    ("start", "problem"), [(9, "no such revision"), (3, "no breach is recorded")]
)
def test_what_leads_nowhere_is_not_taken(inside: Insides, start: int, problem: str) -> None:
    with pytest.raises(RecalibrationError, match=problem):
        order(inside, start)


def test_a_battery_that_was_replaced_is_not_replayed(inside: Insides) -> None:
    replaced = BatteryOrder(
        vehicle_id="car", odometer=6000.0, ordered_by="shop", why="", ordered_at=NOW
    )
    with inside.store.write() as db:
        battery_orders.place(db, replaced)
    work(inside)
    with pytest.raises(RecalibrationError, match="replaced"):
        order(inside, 1)


def test_while_a_vehicle_is_pinned_breaches_are_recorded_and_bring_nothing(
    inside: Insides,
) -> None:
    pinned(inside, 1)
    work(inside)
    again = decode_revision(inside.rows()[-1].content)
    assert again.theta == decode_revision(inside.rows()[0].content).theta
    assert (again.cause.kind, again.cause.returns_to) == ("roll_back", 1)
    assert again.cause.why == "pinned: odd"
    breach(inside, 7, again.number)
    assert inside.rows()[-1].number == again.number
    assert list(inside.publisher.declined.values())[-1] == "pinned by desk: odd"
    with pytest.raises(RecalibrationError, match="pinned"):
        order(inside, 1)
    back = RollBackOrder(vehicle_id="car", to_revision=3, ordered_by="x", why="", ordered_at=NOW)
    with pytest.raises(RollBackError, match="pinned"), inside.store.write() as db:
        roll_back_orders.place(db, back)
    with inside.store.write() as db:
        pins.end(db, "car", "desk", "the sensor was changed", NOW)
    breach(inside, 8, again.number)
    assert inside.rows()[-1].number == again.number + 1


def test_one_pin_at_a_time_and_none_to_end_is_an_error(inside: Insides) -> None:
    with pytest.raises(PinError, match="not pinned"), inside.store.write() as db:
        pins.end(db, "car", "desk", "", NOW)
    pinned(inside, 3)
    with pytest.raises(PinError, match="pinned to revision 3"):
        pinned(inside, 1)


def test_a_pin_to_what_stands_is_said_in_the_chain_as_well(inside: Insides) -> None:
    pinned(inside, 3)
    work(inside)
    assert decode_revision(inside.rows()[-1].content).cause.returns_to == 3


@pytest.mark.parametrize("place", [order, pinned])
def test_who_shares_the_work_by_lanes_finds_every_order(
    inside: Insides, place: Callable[[Insides, int], object]
) -> None:
    def lanes() -> set[int]:
        with inside.store.read() as db:
            return waiting.lanes_with_orders(db)

    assert lanes() == set()
    place(inside, 1)
    assert lanes() == {lane_of("car")}
    work(inside)
    assert lanes() == set()
