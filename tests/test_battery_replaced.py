"""A replaced battery begins anew: in the chain, for the fleet, and on the vehicle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn

from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.calibration.fleet_priors import make, read
from cloud.errors import BatteryOrderError
from cloud.roles.service import listen
from cloud.store import battery_orders, evidence, fleet_priors, verification
from cloud.store.tables import BatteryOrder, Breach, Vehicle
from cloud.store.verification import Verified
from common import calibration
from common.fleet_prior import growth_at, start
from common.revision import Revision, decode_revision
from tests.cloud_doubles import NOW, Insides, opened, write_bundle
from tests.test_cloud_fleet_prior import add_prior, drive, priors, young_fleet


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path)
    yield made
    made.store.close()


def order(inside: Insides, vehicle_id: str, odometer: float) -> BatteryOrder:
    with inside.store.write() as db:
        placed = battery_orders.place(
            db,
            BatteryOrder(
                vehicle_id=vehicle_id,
                odometer=odometer,
                ordered_by="workshop",
                why="",
                ordered_at=NOW,
            ),
        )
    inside.worker.wake()
    return placed


@contextmanager
def api(inside: Insides, wake: Callable[[], None] = lambda: None) -> Iterator[httpx.Client]:
    """A real server on a port of its own."""
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {}, wake)
    config = uvicorn.Config(create_app(opened(context)), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/vehicles"
    with httpx.Client(base_url=address, trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join()
    listener.close()


def replaced(inside: Insides, vehicle_id: str, odometer: float) -> Revision:
    order(inside, vehicle_id, odometer)
    inside.work()
    return revisions(inside, vehicle_id)[-1]


def revisions(inside: Insides, vehicle_id: str) -> list[Revision]:
    return [decode_revision(row.content) for row in inside.rows(vehicle_id)]


def test_a_replaced_battery_is_the_fleets_new_one_from_its_odometer_on(inside: Insides) -> None:
    young_fleet(inside)
    inside.publisher.sent.clear()
    revision = replaced(inside, "a", 20_000.0)
    assert (revision.number, revision.base, revision.prior_version) == (4, 0, 1)
    assert (revision.cause.kind, revision.odometer) == ("replacement", 20_000.0)
    as_new = start(priors(inside)[0], inside.bundle.manifest, 0.0)
    assert revision.theta == as_new.theta.tolist()
    assert revision.parent_hash == inside.rows("a")[2].hash
    assert inside.publisher.numbers == [4]
    with inside.store.read() as db:
        found = list(verification.verify_all(db, verification.remembered_keys(db)))
    assert all(isinstance(chain, Verified) for chain in found)


def test_without_a_fleet_it_begins_from_the_bundle(inside: Insides) -> None:
    drive(inside, inside.car("a"), 2)
    revision = replaced(inside, "a", 20_000.0)
    as_new = calibration.prior(inside.bundle.manifest)
    assert revision.prior_version == 0
    assert revision.theta == as_new.theta.tolist()
    assert revision.covariance == calibration.upper_triangle(as_new.covariance)


def test_the_batterys_own_age_counts_from_then_on(inside: Insides) -> None:
    young_fleet(inside)
    speeding = [[1e-6 * k, 2e-6 * k] for k in range(1, len(priors(inside)[0].odometers) + 1)]
    add_prior(inside, msgspec.structs.replace(priors(inside)[0], version=2, growth=speeding))
    replaced(inside, "a", 20_000.0)
    car = inside.car("a")
    inside.take(car.breach(24, revision=4, trace=car.breach(9).trace))
    inside.work()
    newest = revisions(inside, "a")[-1]
    assert (newest.base, newest.prior_version, newest.odometer) == (4, 2, 24_000.0)
    assert newest.rate_growth == growth_at(priors(inside)[1], 4000.0).tolist()
    assert newest.rate_growth != growth_at(priors(inside)[1], 24_000.0).tolist()


def test_what_a_refused_replacement_leaves_is_not_the_old_battery(inside: Insides) -> None:
    """Whatever the vehicle says, what was learned before says nothing of the new battery."""
    young_fleet(inside)
    replaced(inside, "a", 20_000.0)
    inside.take(inside.car("a").acknowledgement(inside.rows("a")[-1], "refused"))
    inside.take(inside.car("a").breach(24, revision=3))
    inside.work()
    newest = revisions(inside, "a")[-1]
    assert (newest.number, newest.base, newest.prior_version) == (5, 0, 1)


def test_the_estimate_is_learned_anew(inside: Insides) -> None:
    young_fleet(inside)
    replaced(inside, "a", 20_000.0)
    [vehicle] = [v for v in inside.table(Vehicle) if v.vehicle_id == "a"]
    assert (vehicle.calibrations, vehicle.failures) == (0, 0)
    assert vehicle.estimate_state == "learning"


def test_a_start_has_left_no_error(inside: Insides) -> None:
    """It explained no trip, neither well nor badly."""
    young_fleet(inside)
    revision = replaced(inside, "a", 20_000.0)
    [vehicle] = [v for v in inside.table(Vehicle) if v.vehicle_id == "a"]
    found = evidence.gather(vehicle, revision, inside.bundle.manifest, NOW)
    assert found.error_left is None


def test_a_breach_of_the_old_battery_comes_too_late(inside: Insides) -> None:
    young_fleet(inside)
    replaced(inside, "a", 20_000.0)
    inside.take(inside.car("a").breach(19, revision=3))
    inside.work()
    [late] = [b for b in inside.table(Breach) if b.trip_id == "trip19"]
    assert "arrived after a newer revision" in (late.reason or "")


def test_both_batteries_teach_the_fleet_each_from_its_own_beginning(inside: Insides) -> None:
    young_fleet(inside)
    for name in ("a", "b", "c"):
        replaced(inside, name, 100_000.0)
        car = inside.car(name)
        for i in (1, 2, 3):
            as_new = car.breach(4 * i).trace
            running = len(inside.rows(name))
            inside.take(car.breach(100 + 4 * i, revision=running, trace=as_new))
            inside.work()
            inside.take(car.acknowledgement(inside.rows(name)[-1], "applied"))
    with inside.store.write() as db:
        row = make(db, inside.bundle.sha256, inside.bundle.manifest, NOW)
        assert fleet_priors.fleet(db, inside.bundle.sha256).vehicles == 3
    made = read(row)
    learned_from = [r for name in "abc" for r in revisions(inside, name)]
    assert made.vehicles == 6
    assert made.revisions == sum(r.cause.kind == "breach" for r in learned_from)
    assert made.odometers[-1] <= 12_000.0


def test_the_same_order_again_is_the_same_order(inside: Insides) -> None:
    young_fleet(inside)
    replaced(inside, "a", 20_000.0)
    assert order(inside, "a", 20_000.0).revision == 4
    inside.work()
    assert len(inside.rows("a")) == 4


@pytest.mark.parametrize(
    ("vehicle_id", "odometer", "why"),
    [
        ("a", 11_000.0, "revision 3 was learned at odometer 12000, after 11000"),
        ("nobody", 1.0, "not said yet which bundle"),
        ("a", float("nan"), "an odometer is between"),
        ("a", -1.0, "an odometer is between"),
    ],
)
def test_an_order_that_cannot_follow_is_refused_in_words(
    inside: Insides, vehicle_id: str, odometer: float, why: str
) -> None:
    young_fleet(inside)
    with pytest.raises(BatteryOrderError, match=why):
        order(inside, vehicle_id, odometer)


def test_an_order_for_a_bundle_out_of_service_waits_and_holds_up_nobody(
    inside: Insides, tmp_path: Path
) -> None:
    young_fleet(inside)
    inside.take(inside.car("x").status(bundle="ee" * 32), inside.car("new").trip(0))
    order(inside, "x", 5.0)
    inside.work()
    assert inside.rows("x") == []
    assert len(inside.rows("new")) == 1


def test_an_operator_orders_it_over_the_api_and_sees_the_lineage(inside: Insides) -> None:
    young_fleet(inside)
    woken: list[bool] = []
    told = {"by": "workshop", "odometer": 20_000.0, "why": "dead cell"}
    with api(inside, lambda: woken.append(True)) as client:
        answer = client.post("/a/battery-replaced", json=told)
        assert answer.status_code == 202
        found = answer.json()
        assert (found["ordered_by"], found["why"]) == ("workshop", "dead cell")
        assert found["revision"] is None
        assert woken == [True]
        inside.worker.wake()
        inside.work()
        assert client.post("/a/battery-replaced", json=told).json()["revision"] == 4
        shown = client.get("/a/revisions/4").json()
    assert (shown["base"], shown["prior_version"]) == (0, 1)
    assert (shown["cause"]["kind"], shown["cause"]["finding"]) == ("replacement", "drift")
    assert shown["cause"]["trip_id"] is None


@pytest.mark.parametrize(
    ("vehicle_id", "body", "status"),
    [
        ("nobody", {"by": "me", "why": "swap"}, 404),
        ("a", {"by": "me", "why": "swap", "odometer": 1.0}, 409),
        ("a", {"odometer": 20_000.0}, 422),
        ("a", {"by": "me", "why": "swap", "odometer": -1.0}, 422),
        ("a", {"by": "me", "why": "swap", "when": "now"}, 422),
    ],
)
def test_an_order_that_is_wrong_is_a_problem(
    inside: Insides, vehicle_id: str, body: dict[str, object], status: int
) -> None:
    young_fleet(inside)
    with api(inside) as client:
        answer = client.post(f"/{vehicle_id}/battery-replaced", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert inside.table(BatteryOrder) == []


def test_without_an_odometer_it_is_the_vehicles_last(inside: Insides) -> None:
    young_fleet(inside)
    inside.take(inside.car("a").trip(30))
    with api(inside) as client:
        answer = client.post("/a/battery-replaced", json={"by": "me", "why": "swap"})
    assert answer.json()["odometer"] == inside.car("a").trip(30).odometer_end
