"""The fleet's prior in the service: made, versioned, given to newcomers, kept along the chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select, text

from cloud.audit import reproduction
from cloud.calibration.fleet_priors import read
from cloud.errors import FleetPriorError
from cloud.store import fleet_priors, verification
from cloud.store.tables import FleetPriorRow, Vehicle
from cloud.store.verification import Verified
from common import calibration
from common.calibration import Settings
from common.fleet_prior import FleetPrior, encode_prior, growth_at, prior_hash, start
from common.messages import SignedRevision, decode
from common.model import VoltageModel
from common.revision import Revision, decode_revision
from common.signing import key_id
from common.trace import from_wire
from common.trust import TrustStore
from edge_agent.parameters.decisions import Identity, KeptTrace, authenticate, judge
from tests.cloud_doubles import Car, Insides, write_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path)
    yield made
    made.store.close()


def drive(inside: Insides, car: Car, breaches: int, first: int = 1) -> None:
    """From new: a trip, then breaches every 4,000 km, each with its revision applied."""
    if first == 1:
        inside.take(car.trip(0), car.status())
        inside.work()
    for i in range(first, first + breaches):
        running = len(inside.rows(car.vehicle_id))
        inside.take(car.breach(4 * i, revision=running), car.status(revision=running))
        inside.work()
        newest = inside.rows(car.vehicle_id)[-1]
        if newest.verdict is None:
            inside.take(car.acknowledgement(newest, "applied"))


def young_fleet(inside: Insides) -> None:
    """Three vehicles with three revisions each: just enough."""
    for name in ("a", "b", "c"):
        drive(inside, inside.car(name), 3)


def priors(inside: Insides) -> list[FleetPrior]:
    with inside.store.read() as db:
        return [read(row) for row in fleet_priors.versions(db)]


def revisions(inside: Insides, vehicle_id: str) -> list[Revision]:
    return [decode_revision(row.content) for row in inside.rows(vehicle_id)]


def test_the_third_vehicle_with_three_revisions_makes_a_fleet(inside: Insides) -> None:
    for name in ("a", "b"):
        drive(inside, inside.car(name), 4)
    drive(inside, inside.car("c"), 2)
    assert priors(inside) == []
    drive(inside, inside.car("c"), 1, first=3)
    [prior] = priors(inside)
    assert (prior.version, prior.vehicles, prior.revisions) == (1, 3, 11)
    assert prior.bundle == inside.bundle.sha256
    assert prior.made_at == inside.now


def test_a_fleet_twice_as_large_or_as_long_known_makes_the_next_version(inside: Insides) -> None:
    young_fleet(inside)
    for i in range(4, 7):
        for name in ("a", "b", "c"):
            assert len(priors(inside)) == 1
            drive(inside, inside.car(name), 1, first=i)
    assert [(p.version, p.revisions) for p in priors(inside)] == [(1, 9), (2, 18)]
    for name in ("d", "e", "f"):
        drive(inside, inside.car(name), 3)
    assert [(p.version, p.vehicles) for p in priors(inside)] == [(1, 3), (2, 3), (3, 6)]


def test_without_a_fleet_a_newcomer_gets_nothing(inside: Insides) -> None:
    drive(inside, inside.car("a"), 3)
    inside.take(inside.car("new").trip(0), inside.car("new").status())
    inside.work()
    assert inside.rows("new") == []
    assert [r.prior_version for r in revisions(inside, "a")] == [0, 0, 0]


def test_a_newcomer_begins_with_what_the_fleet_knows(inside: Insides) -> None:
    young_fleet(inside)
    inside.publisher.sent.clear()
    car = inside.car("new")
    inside.take(car.status(), car.trip(2))
    inside.work()
    [revision] = revisions(inside, "new")
    assert (revision.number, revision.base, revision.prior_version) == (1, 0, 1)
    assert (revision.cause.kind, revision.cause.trip_id) == ("fleet_prior", None)
    assert revision.cause.message_id == car.trip(2).message_id
    expected = start(priors(inside)[0], inside.bundle.manifest, car.trip(2).odometer_start)
    assert revision.odometer == expected.odometer
    assert revision.theta == expected.theta.tolist()
    assert expected.growth is not None
    assert revision.rate_growth == expected.growth.tolist()
    [sent] = inside.publisher.of_kind("parameters")
    assert (sent.topic, sent.retain) == ("twin/v1/new/parameters", True)
    inside.work()
    assert len(inside.rows("new")) == 1


def test_a_start_and_what_grows_from_it_come_again_to_the_last_byte(inside: Insides) -> None:
    young_fleet(inside)
    inside.take(inside.car("new").status(), inside.car("new").trip(2))
    inside.work()
    inside.take(inside.car("new").breach(6, revision=1))
    inside.work()
    rows = inside.rows("new")
    assert [row.kind for row in rows] == ["fleet_prior", "breach"]
    with inside.store.read() as db:
        for row in rows:
            assert reproduction.reproduce(db, inside.catalogue, row).differences == []


def test_newcomers_that_were_there_before_the_prior_get_it_as_soon_as_it_is_made(
    inside: Insides,
) -> None:
    inside.take(inside.car("waits").trip(0))
    inside.work()
    young_fleet(inside)
    assert [r.cause.kind for r in revisions(inside, "waits")] == ["fleet_prior"]


def test_a_status_alone_does_not_say_how_old_the_battery_is(inside: Insides) -> None:
    young_fleet(inside)
    inside.take(inside.car("new").status())
    inside.work()
    assert inside.rows("new") == []


def test_a_vehicle_that_runs_a_lost_history_is_no_newcomer(inside: Insides) -> None:
    young_fleet(inside)
    inside.take(inside.car("old").trip(3, revision=7), inside.car("old").status(revision=7))
    inside.work()
    assert inside.rows("old") == []


def test_the_vehicle_believes_its_start_and_runs_it(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    inside.take(car.trip(0))
    inside.work()
    message = decode(inside.publisher.of_kind("parameters")[-1].payload, SignedRevision)
    trusted = TrustStore({key_id(inside.key.public_key()): inside.key.public_key()})
    manifest, model = inside.bundle.manifest, VoltageModel(inside.bundle)
    found = authenticate(message, Identity("new", inside.bundle.sha256, manifest, trusted))
    driven = KeptTrace("0" * 32, 8000.0, car.trace(8000.0))
    verdict = judge(found, 0, calibration.prior(manifest), driven, model, manifest)
    assert verdict.applied
    assert verdict.error_after_v is not None
    assert verdict.error_before_v is not None
    assert verdict.error_after_v < verdict.error_before_v / 2


def test_what_comes_after_a_start_grows_from_it_and_remembers_its_version(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    inside.take(car.trip(0))
    inside.work()
    off = car.breach(5, trace=car.breach(9).trace)  # 4,000 km worse than the fleet
    inside.take(off)
    inside.work()
    first, second = revisions(inside, "new")
    assert (second.base, second.prior_version, second.cause.kind) == (1, 1, "breach")
    assert second.rate_growth == growth_at(priors(inside)[0], second.odometer).tolist()
    with inside.store.read() as db:
        found = list(verification.verify_all(db, verification.remembered_keys(db)))
    assert all(isinstance(chain, Verified) for chain in found)
    assert len(found) == 4
    assert first.cause.kind == "fleet_prior"


def test_growth_comes_from_the_newest_version_and_the_start_keeps_its_own(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    inside.take(car.trip(0))
    inside.work()
    steep = msgspec.structs.replace(
        priors(inside)[0], version=2, growth=[[1e-5, 2e-5]] * len(priors(inside)[0].odometers)
    )
    add_prior(inside, steep)
    inside.take(car.breach(5, trace=car.breach(9).trace))
    inside.work()
    newest = revisions(inside, "new")[-1]
    assert newest.prior_version == 1
    assert newest.rate_growth == [1e-5, 2e-5]


def test_a_first_breach_without_a_start_is_calibrated_from_the_fleet(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    wire = car.breach(9).trace
    inside.take(car.breach(5, trace=wire), car.trip(5, odometer_start=5000.0))
    inside.work()
    [revision] = revisions(inside, "new")
    assert (revision.base, revision.prior_version, revision.cause.kind) == (0, 1, "breach")
    manifest, model = inside.bundle.manifest, VoltageModel(inside.bundle)
    from_fleet = start(priors(inside)[0], manifest, 5000.0)
    [expected] = calibration.calibrate(
        [from_fleet], [from_wire(wire, manifest)], [5000.0], model, manifest, Settings()
    )
    assert revision.theta == expected.estimate.theta.tolist()


def test_a_first_breach_that_the_fleet_explains_brings_the_start_instead(inside: Insides) -> None:
    """The vehicle still runs nominal parameters: what it lacks is the fleet's knowledge."""
    young_fleet(inside)
    car = inside.car("new")
    prior = priors(inside)[0]
    manifest, model = inside.bundle.manifest, VoltageModel(inside.bundle)
    features = car.trace(8000.0).features
    exactly = model.predict(features, start(prior, manifest, 8000.0).theta)
    wire = msgspec.structs.replace(car.breach(8).trace, voltage_v=exactly.tolist())
    inside.take(car.breach(8, trace=wire), car.trip(8))
    inside.work()
    assert inside.breach_states()["trip8"] == "declined"
    assert [r.cause.kind for r in revisions(inside, "new")] == ["fleet_prior"]


def test_the_breach_of_the_very_first_trip_is_not_too_late_for_its_start(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    inside.take(car.trip(5))
    inside.work()
    inside.take(car.breach(5, trace=car.breach(9).trace))
    inside.work()
    assert [r.cause.kind for r in revisions(inside, "new")] == ["fleet_prior", "breach"]


def test_a_refused_start_is_not_tried_again_and_blames_nobody(inside: Insides) -> None:
    young_fleet(inside)
    car = inside.car("new")
    inside.take(car.trip(0))
    inside.work()
    inside.take(car.acknowledgement(inside.rows("new")[0], "refused"), car.trip(1))
    inside.work()
    assert len(inside.rows("new")) == 1
    [vehicle] = [v for v in inside.table(Vehicle) if v.vehicle_id == "new"]
    assert (vehicle.failures, vehicle.calibrations) == (0, 0)


def test_a_start_teaches_the_fleet_nothing(inside: Insides) -> None:
    young_fleet(inside)
    for i in range(20):
        inside.take(inside.car(f"new{i}").trip(0))
    inside.work()
    with inside.store.read() as db:
        assert fleet_priors.fleet(db, inside.bundle.sha256) == fleet_priors.Fleet(3, 9)
    assert len(priors(inside)) == 1


def test_more_newcomers_than_a_round_takes_all_get_their_start(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.calibration.battery_starts.AT_ONCE", 2)
    young_fleet(inside)
    inside.publisher.connected = False  # nobody else wakes the worker
    inside.take(*(inside.car(f"new{i}").trip(0) for i in range(5)))
    inside.worker.wake()
    inside.work()
    assert [len(inside.rows(f"new{i}")) for i in range(5)] == [1] * 5


def test_after_a_restart_the_newest_version_is_used(inside: Insides) -> None:
    young_fleet(inside)
    inside.start()
    inside.take(inside.car("new").trip(0))
    inside.work()
    assert revisions(inside, "new")[0].prior_version == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fleet_prior SET content = X'00'",
        "DELETE FROM fleet_prior",
        "INSERT OR REPLACE INTO fleet_prior SELECT * FROM fleet_prior",
    ],
)
def test_the_database_itself_refuses_to_change_a_version(inside: Insides, statement: str) -> None:
    young_fleet(inside)
    with pytest.raises(IntegrityError, match="append-only"), inside.store.write() as db:
        db.connection().execute(text(statement))
    assert len(priors(inside)) == 1


def test_an_edited_version_is_not_used(inside: Insides) -> None:
    young_fleet(inside)
    with inside.store.read() as db:
        row = db.exec(select(FleetPriorRow)).one()
    row.content = row.content.replace(b'"vehicles": 3', b'"vehicles": 4')
    with pytest.raises(FleetPriorError, match="does not have its hash"):
        read(row)


def test_an_edited_version_gives_way_to_the_one_before_and_stops_nobody(inside: Insides) -> None:
    young_fleet(inside)
    edited = msgspec.structs.replace(priors(inside)[0], version=2)
    add_prior(inside, edited, digest="0" * 64)
    inside.take(inside.car("new").trip(0))
    inside.work()
    assert revisions(inside, "new")[0].prior_version == 1
    drive(inside, inside.car("a"), 1, first=4)
    assert len(inside.rows("a")) == 4


def add_prior(inside: Insides, prior: FleetPrior, digest: str = "") -> None:
    content = encode_prior(prior)
    with inside.store.write() as db:
        db.add(
            FleetPriorRow(
                bundle=prior.bundle,
                version=prior.version,
                content=content,
                hash=digest or prior_hash(content),
                made_at=prior.made_at,
                fleet_vehicles=100,
                fleet_revisions=1000,
            )
        )
