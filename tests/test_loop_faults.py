"""Kill -9 of agent, service and broker in the middle of a fleet run changes nothing in its end.

INVARIANTS 1, 2 and 3: real processes, a real Mosquitto, real kills at points that a seed draws.
"""

from __future__ import annotations

import csv
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.revision import decode_revision, verify_chain
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.loop import free_port, wait_ready
from demo.simulated import vehicles_of
from demo.vehicles import VehicleData
from firmware_sim.published_fleet import FleetSettings, simulate_fleet
from tests.waiting import eventually

BUNDLE = Path(__file__).parent / "data" / "fleet_bundle"
VEHICLES, TRIPS, EVERY = 3, 40, 4
DEADLINE_S = 90.0


@dataclass(frozen=True)
class Ending:
    """What a run leaves: trips and breaches by id, revisions with their parameters, verdicts."""

    trips: set[tuple[str, str, int, float]]
    breaches: set[tuple[str, str, str]]
    revisions: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    theta: dict[tuple[str, int], list[float]] = field(default_factory=dict)


class FleetRun:
    """Broker, service and one agent process per vehicle; each can be killed and comes back."""

    def __init__(self, folder: Path, vehicles: list[VehicleData]) -> None:
        self.folder, self.vehicles = folder, vehicles
        create_key_pair(folder / "cloud.key.pem", folder / "cloud.pub.pem")
        self.broker = PrivateBroker(source="any").start()
        self.service: subprocess.Popen[bytes] | None = None
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._write_service_config()

    def start(self) -> None:
        self.start_service()
        for vehicle in self.vehicles:
            write_trips(vehicle, self.folder / f"{vehicle.vehicle_id}.csv")
            self._write_agent_config(vehicle.vehicle_id)
            self.start_agent(vehicle.vehicle_id)

    def start_service(self) -> None:
        log = self.folder / "cloud.log"
        with log.open("ab") as file:
            seen = file.tell()
            self.service = self._spawn("cloud", "serve", "--config", "twin-cloud.toml", log=file)
        wait_ready(self.service, log, seen)

    def start_agent(self, vehicle_id: str) -> None:
        with (self.folder / f"{vehicle_id}.log").open("ab") as log:
            self.agents[vehicle_id] = self._spawn(
                *("edge_agent", "replay", f"{vehicle_id}.csv", "--config", f"{vehicle_id}.toml"),
                *("--wait-for-cloud", str(DEADLINE_S)),
                log=log,
            )

    def kill_service(self) -> None:
        assert self.service is not None
        self.service.kill()
        self.service.wait()
        self.start_service()

    def kill_broker(self) -> None:
        self.broker.kill()
        self.broker.start()

    def kill_agent(self, vehicle_id: str) -> None:
        agent = self.agents[vehicle_id]
        if agent.poll() is None:
            agent.kill()
            agent.wait()
            self.start_agent(vehicle_id)

    def known_trips(self) -> int:
        database = self.folder / "cloud.db"
        if not database.exists():
            return 0
        with closing(sqlite3.connect(database, timeout=10)) as db:
            return int(db.execute("SELECT COUNT(*) FROM trip").fetchone()[0])

    def finish(self) -> Ending:
        for vehicle_id, agent in self.agents.items():
            code = agent.wait(timeout=DEADLINE_S)
            assert code == 0, (self.folder / f"{vehicle_id}.log").read_text()[-2000:]
        return read_ending(self.folder / "cloud.db")

    def close(self) -> None:
        for process in (*self.agents.values(), self.service):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.broker.close()

    def _spawn(self, module: str, *arguments: str, log: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)  # type: ignore[call-overload,no-any-return]

    def _write_service_config(self) -> None:
        (self.folder / "twin-cloud.toml").write_text(
            f'[mqtt]\nport = {self.broker.port}\nprotocol = "{self.broker.mqtt_version}"\n'
            f'[store]\npath = "cloud.db"\n[bundles]\npaths = ["{BUNDLE}"]\n'
            f'[keys]\nprivate = "cloud.key.pem"\n[api]\nauth = "none"\nport = {free_port()}\n'
        )

    def _write_agent_config(self, vehicle_id: str) -> None:
        (self.folder / f"{vehicle_id}.toml").write_text(
            f'vehicle_id = "{vehicle_id}"\nbundle = "{BUNDLE}"\n'
            f'state = "{vehicle_id}/state.db"\ntrusted_keys = ["cloud.pub.pem"]\n'
            f'[mqtt]\nport = {self.broker.port}\nprotocol = "{self.broker.mqtt_version}"\n'
            "[limits]\nreceipt_timeout_s = 1.0\nstatus_interval_s = 2.0\n"
        )


def write_trips(vehicle: VehicleData, path: Path) -> None:
    names = list(vehicle.trips[0].signals)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["vehicle_id", "trip_id", "time_s", "odometer", *names, "voltage_v"])
        for trip in vehicle.trips:
            columns = [trip.signals[name] for name in names]
            for row in zip(trip.time_s, trip.odometer, *columns, trip.voltage_v, strict=True):
                writer.writerow([vehicle.vehicle_id, trip.trip_id, *map(float, row)])


def read_ending(database: Path) -> Ending:
    with closing(sqlite3.connect(database)) as db:
        trips = set(db.execute("SELECT vehicle_id, trip_id, revision, error_v FROM trip"))
        assert db.execute("SELECT COUNT(*) FROM trip").fetchone()[0] == len(trips)
        breaches = set(db.execute("SELECT vehicle_id, trip_id, state FROM breach"))
        ending = Ending(trips, breaches)
        query = "SELECT vehicle_id, number, content, hash, verdict FROM revision ORDER BY 1, 2"
        chains: dict[str, list[tuple[bytes, str]]] = {}
        for vehicle_id, number, content, digest, verdict in db.execute(query):
            revision = decode_revision(content)
            ending.revisions[vehicle_id, number] = (str(revision.cause.trip_id), verdict)
            ending.theta[vehicle_id, number] = [*revision.theta, *revision.rate]
            chains.setdefault(vehicle_id, []).append((content, digest))
    for vehicle_id, links in chains.items():
        verify_chain(vehicle_id, links)
    return ending


@contextmanager
def fleet_run(folder: Path, vehicles: list[VehicleData]) -> Iterator[FleetRun]:
    folder.mkdir()
    run = FleetRun(folder, vehicles)
    try:
        run.start()
        yield run
    finally:
        run.close()


@pytest.fixture(scope="module")
def vehicles() -> list[VehicleData]:
    """Every fourth trip, so that a short run ages enough to breach often."""
    fleet = simulate_fleet(FleetSettings(VEHICLES, TRIPS, 5))
    return [
        VehicleData(vehicle.vehicle_id, vehicle.trips[::EVERY]) for vehicle in vehicles_of(fleet)
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, vehicles: list[VehicleData]) -> Ending:
    with fleet_run(tmp_path_factory.mktemp("fleet") / "undisturbed", vehicles) as run:
        return run.finish()


def assert_same(found: Ending, expected: Ending) -> None:
    assert found.trips == expected.trips
    assert found.breaches == expected.breaches
    assert found.revisions == expected.revisions
    for key, theta in expected.theta.items():
        assert found.theta[key] == pytest.approx(theta, rel=1e-6, abs=1e-12)


@pytest.mark.xdist_group("faults")
def test_the_undisturbed_run_breaches_and_updates_every_vehicle(undisturbed: Ending) -> None:
    assert len(undisturbed.trips) == VEHICLES * TRIPS // EVERY
    assert {vehicle_id for vehicle_id, _ in undisturbed.revisions} == {"V001", "V002", "V003"}
    assert {verdict for _, verdict in undisturbed.revisions.values()} == {"applied"}
    assert {state for _, _, state in undisturbed.breaches} == {"calibrated"}


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_of_agent_service_and_broker_change_nothing(
    seed: int, undisturbed: Ending, vehicles: list[VehicleData], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    total = VEHICLES * TRIPS // EVERY
    with fleet_run(tmp_path / "disturbed", vehicles) as run:
        kills: list[Callable[[], None]] = [run.kill_service, run.kill_broker, run.kill_broker]
        kills += [lambda v=v.vehicle_id: run.kill_agent(v) for v in vehicles]  # type: ignore[misc]
        rng.shuffle(kills)
        points = sorted(rng.sample(range(total - 2), len(kills)))
        for point, kill in zip(points, kills, strict=True):
            eventually(lambda point=point: run.known_trips() >= point, DEADLINE_S)  # type: ignore[misc]
            kill()
        assert_same(run.finish(), undisturbed)
