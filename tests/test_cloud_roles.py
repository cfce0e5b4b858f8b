"""The roles as processes of their own: real Mosquitto, real PostgreSQL, real kills."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlmodel import Session, col, func, select

from cloud.calibration.poison import MAX_TRIES
from cloud.errors import RoleError
from cloud.location import PostgresUrl
from cloud.roles import process
from cloud.roles.worker_role import STUCK
from cloud.store import chains, heads, verification
from cloud.store.database import Store
from cloud.store.facts import Recorder
from cloud.store.job_queue import HEADS, JobQueue
from cloud.store.tables import Breach as BreachRow
from cloud.store.tables import Quarantine, RevisionRow
from cloud.store.verification import Verified
from common.bundle import Bundle, load_bundle
from common.messages import Breach, Receipt, SignedRevision, decode, encode
from common.revision import decode_revision
from common.signing import create_key_pair
from common.topics import topic
from demo.broker import PrivateBroker
from demo.database import PrivatePostgres
from demo.roles import RoleProcess, running, write_config
from tests import deadly_worker
from tests.cloud_doubles import Car, write_bundle
from tests.conftest import Connect
from tests.mqtt_peer import Peer
from tests.waiting import eventually

LONG_S = 90.0


@dataclass
class Site:
    """A database, a broker, a configuration; roles are started by the tests."""

    folder: Path
    bundle: Bundle
    url: PostgresUrl
    broker: PrivateBroker

    def config(self, more: str = "") -> Path:
        return write_config(
            self.folder,
            broker_port=self.broker.port,
            store=self.url.full,
            bundle=self.folder / "bundle",
            key=self.folder / "keys" / "private.pem",
            more=more,
        )

    def cars(self, count: int) -> list[Car]:
        return [Car(f"car{i}", self.bundle) for i in range(count)]

    def states(self) -> dict[str, int]:
        """How many breaches are in each state."""
        store = Store(self.url)
        with store.read() as db:
            found = db.exec(select(BreachRow.state, func.count()).group_by(BreachRow.state))
            counted = dict(found.all())
        store.close()
        return counted

    def are_settled(self, breaches: int) -> bool:
        states = self.states()
        return sum(states.values()) == breaches and "pending" not in states

    def are_all_heads_stated(self, vehicles: int) -> bool:
        """Whether signed heads cover all revisions; some worker is asked to state them."""
        store = Store(self.url)
        with store.read() as db:
            known, newest = heads.current(db), chains.newest_numbers(db)
        covered = {vehicle_id: head.number for vehicle_id, head in known.items()} == newest
        if not covered:
            JobQueue(store).defer([HEADS])
        store.close()
        return covered and len(known) == vehicles

    def require_whole(self, breaches: int) -> None:
        """Chains hold, each breach brought at most one revision, in odometer order."""
        store = Store(self.url)
        with store.read() as db:
            keys = verification.remembered_keys(db)
            assert all(isinstance(one, Verified) for one in verification.verify_all(db, keys))
            rows = db.exec(select(RevisionRow).order_by(col(RevisionRow.number))).all()
            known = db.exec(select(BreachRow)).all()
        store.close()
        assert len(known) == breaches
        calibrated = [row.message_id for row in known if row.state == "calibrated"]
        assert sorted(row.cause_message_id for row in rows) == sorted(calibrated)
        reasons = [row.reason for row in known if row.state == "declined"]
        assert not any("after a newer revision" in (reason or "") for reason in reasons)
        for vehicle_id in {row.vehicle_id for row in rows}:
            odometers = [row.odometer for row in rows if row.vehicle_id == vehicle_id]
            assert odometers == sorted(odometers)


@pytest.fixture
def site(tmp_path: Path, postgres_database: PostgresUrl, mosquitto: PrivateBroker) -> Site:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "keys" / "private.pem", tmp_path / "keys" / "public.pem")
    return Site(tmp_path, load_bundle(tmp_path / "bundle"), postgres_database, mosquitto)


@dataclass
class Fleet:
    """Vehicles that offer a breach after the receipt of the one before, and again without one."""

    peer: Peer
    waiting: dict[str, list[Breach]]
    offered: dict[str, str] = field(default_factory=dict)

    @property
    def breaches(self) -> int:
        return sum(map(len, self.waiting.values()))

    def receipts(self) -> set[str]:
        found = [data for name, data in self.peer.received if name.endswith("/receipt")]
        return {one for data in found for one in decode(data, Receipt).message_ids}

    def offer(self, *, again: bool = False) -> bool:
        """Offer what is due; False once everything has its receipt."""
        known, left = self.receipts(), False
        for vehicle_id, breaches in self.waiting.items():
            due = [one for one in breaches if one.message_id not in known][:1]
            left = left or bool(due)
            for one in due:
                if again or self.offered.get(vehicle_id) != one.message_id:
                    self.offered[vehicle_id] = one.message_id
                    self.peer.publish(topic(vehicle_id, "breach"), encode(one))
        return left


def fleet_of(site: Site, connect: Connect, cars: int, trips: int) -> Fleet:
    peer = connect(site.broker, "fleet")
    peer.subscribe("twin/v1/+/receipt", "twin/v1/+/parameters")
    waiting = {
        car.vehicle_id: [car.breach(n) for n in range(1, trips + 1)] for car in site.cars(cars)
    }
    return Fleet(peer, waiting)


def drive(fleet: Fleet, *, again: bool = True) -> None:
    """Until every breach has its receipt; what has none is offered again now and then."""
    looks = iter(range(10**9))

    def is_done() -> bool:
        return not fleet.offer(again=again and next(looks) % 200 == 199)

    eventually(is_done, LONG_S, "every receipt")


def progress(fleet: Fleet, more: int) -> None:
    """Until so many more breaches have their receipt, or all."""
    enough = len(fleet.receipts()) + more
    eventually(lambda: not fleet.offer() or len(fleet.receipts()) >= enough, LONG_S)


@pytest.mark.parametrize("role", ["ingest", "worker", "api"])
def test_a_role_that_shares_the_work_refuses_sqlite(tmp_path: Path, role: process.Role) -> None:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "key.pem", tmp_path / "public.pem")
    config = tmp_path / "c.toml"
    config.write_text(
        '[store]\npath="t.db"\n[bundles]\npaths=["bundle"]\n[keys]\nprivate="key.pem"'
    )
    with pytest.raises(RoleError, match=f"`twin-cloud {role}`.*postgresql://.*twin-cloud serve"):
        process.run(config, role)


def test_processes_divide_the_work_and_any_of_them_may_be_killed(
    site: Site, connect: Connect
) -> None:
    """Two ingests, two workers and an API; each but the API is killed once under load."""
    config = site.config()
    ingests = [RoleProcess("ingest", config, f"ingest{n}") for n in (1, 2)]
    workers = [RoleProcess("worker", config, f"worker{n}") for n in (1, 2)]
    api = RoleProcess("api", config)
    with running(*ingests, *workers, api):
        fleet = fleet_of(site, connect, cars=10, trips=6)
        for victim in (*workers, *ingests):
            progress(fleet, 5)
            victim.kill()
            victim.start()
        drive(fleet)
        eventually(lambda: site.are_settled(60), LONG_S, "every outcome")
        eventually(lambda: site.are_all_heads_stated(10), LONG_S, "a statement of every head")
        for one in (*ingests, *workers):
            with httpx.Client(base_url=one.health(), trust_env=False) as client:
                eventually(lambda: client.get("/health/ready").status_code == 200, LONG_S)
                assert client.get("/health/live").json() == {"status": "ok"}
                assert "twin_build_info" in client.get("/metrics").text
        codes = [one.stop() for one in (*ingests, *workers, api)]
    site.require_whole(60)
    assert codes == [0] * 5
    assert newest_retained(site, connect) == dict.fromkeys(fleet.waiting, 6)


def test_serve_alone_does_everything_on_postgresql_too(site: Site, connect: Connect) -> None:
    serve = RoleProcess("serve", site.config())
    with running(serve):
        fleet = fleet_of(site, connect, cars=3, trips=3)
        drive(fleet)
        eventually(lambda: site.are_settled(9), LONG_S, "every outcome")
        told = fleet.peer.received
        eventually(lambda: any(name.endswith("/parameters") for name, _ in told), LONG_S)
        assert httpx.get(f"{serve.api()}/health/ready", trust_env=False).status_code == 200
        assert serve.stop() == 0
    site.require_whole(9)


def test_database_and_broker_may_be_restarted_under_load(
    site: Site, connect: Connect, postgres: PrivatePostgres
) -> None:
    config = site.config()
    ingest, worker = RoleProcess("ingest", config, "ingest1"), RoleProcess("worker", config)
    with running(ingest, worker):
        fleet = fleet_of(site, connect, cars=5, trips=6)
        progress(fleet, 8)
        postgres.restart()
        progress(fleet, 8)
        site.broker.restart()
        eventually(lambda: fleet.peer.connected, LONG_S, "the fleet's connection")
        fleet.peer.subscribe("twin/v1/+/receipt", "twin/v1/+/parameters")
        drive(fleet)
        eventually(lambda: site.are_settled(30), LONG_S, "every outcome")
        assert (ingest.running, worker.running) == (True, True)
    site.require_whole(30)


def test_a_worker_whose_round_does_not_end_ends_itself_and_its_lane_goes_on(
    site: Site, connect: Connect
) -> None:
    """Somebody holds the vehicle's row: the round waits for it longer than a round may take."""
    config = site.config("[worker]\ndeadline_s = 2\n")
    ingest, worker = RoleProcess("ingest", config, "ingest1"), RoleProcess("worker", config)
    with running(ingest, worker):
        fleet = fleet_of(site, connect, cars=1, trips=1)
        progress(fleet, 1)
        eventually(lambda: site.are_settled(1), LONG_S, "the first outcome")
        with psycopg.connect(site.url.full) as holder:
            second = site.cars(1)[0].breach(2)
            store = Store(site.url)
            with store.write() as db:
                facts_of(db, second)
            store.close()
            holder.execute("SELECT 1 FROM vehicle WHERE vehicle_id = 'car0' FOR UPDATE")
            assert worker.wait() == 1
            assert "event=worker_stuck" in worker.log
        worker.start()
        eventually(lambda: site.are_settled(2), LONG_S, "the second outcome")
    site.require_whole(2)


def test_a_worker_that_stands_still_is_taken_over_and_goes_on_later(
    site: Site, connect: Connect
) -> None:
    """Paused within its transaction, as with its machine: it holds the row until its deadline."""
    config = site.config("[worker]\ndeadline_s = 8\n")
    ingest = RoleProcess("ingest", config, "ingest1")
    paused, other = (RoleProcess("worker", config, f"worker{n}") for n in (1, 2))

    def is_done() -> bool:
        if not paused.running:  # what it finds first is that its round has taken too long
            assert paused.wait() == STUCK
            paused.start()
        return site.are_settled(3)

    with running(ingest, paused):
        fleet, [car] = fleet_of(site, connect, cars=1, trips=1), site.cars(1)
        drive(fleet)
        eventually(lambda: site.are_settled(1), LONG_S, "the first outcome")
        with psycopg.connect(site.url.full) as holder:
            store = Store(site.url)
            with store.write() as db:
                facts_of(db, car.breach(2))
            store.close()
            holder.execute("SELECT 1 FROM vehicle WHERE vehicle_id = 'car0' FOR UPDATE")
            eventually(lambda: waits_for_a_row(site), LONG_S, "the worker's transaction")
            paused.signal(signal.SIGSTOP)
        with other:
            eventually(lambda: site.are_settled(2), LONG_S, "the second outcome")
            assert "event=job_taken_over" in other.log
        paused.signal(signal.SIGCONT)
        fleet.waiting["car0"].append(car.breach(3))
        drive(fleet)
        eventually(is_done, LONG_S, "the third outcome, by who had stood")
        assert paused.stop() == 0
    site.require_whole(3)


def waits_for_a_row(site: Site) -> bool:
    with psycopg.connect(site.url.full) as db:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = "
        return db.execute(waiting + "current_database()").fetchone() is not None


def test_a_breach_over_which_workers_end_is_set_aside_and_holds_up_nobody(
    site: Site, connect: Connect
) -> None:
    config = site.config()
    ingest = RoleProcess("ingest", config, "ingest1")
    worker = RoleProcess("worker", config, program="tests.deadly_worker")
    codes: list[int] = []

    def are_settled() -> bool:
        if not worker.running:
            codes.append(worker.wait())
            worker.start()
        return site.are_settled(9)

    with running(ingest, worker):
        fleet = fleet_of(site, connect, cars=3, trips=3)
        for car in site.cars(3)[1:]:
            beside = [car.breach(n, deadly_worker.DEADLY_ODOMETER + 10 * n) for n in (1, 2, 3)]
            fleet.waiting[car.vehicle_id] = beside
        drive(fleet)
        eventually(are_settled, LONG_S, "every outcome")
    assert codes == [deadly_worker.CODE] * MAX_TRIES
    store = Store(site.url)
    with store.read() as db:
        declined = db.exec(select(BreachRow).where(BreachRow.state == "declined")).all()
        kept = db.exec(select(Quarantine)).all()
    store.close()
    assert [(row.vehicle_id, row.trip_id) for row in declined] == [("car0", "trip2")]
    assert declined[0].reason == "its calibration failed: 3 workers ended over it"
    assert [(row.vehicle_id, row.error) for row in kept] == [("car0", "CalibrationFailedError")]
    site.require_whole(9)


def facts_of(db: Session, breach: Breach) -> None:
    """The breach as an ingest would store it that ends before it leaves a job."""
    recorder = Recorder(db, [breach], time.time())
    recorder.record(breach)
    recorder.finish()


def newest_retained(site: Site, connect: Connect) -> dict[str, int]:
    """The number of the revision that the broker keeps for each vehicle."""
    late = connect(site.broker, "late")
    late.subscribe("twin/v1/+/parameters")
    eventually(lambda: len(late.received) >= 10, LONG_S, "what is retained")
    signed = [decode(data, SignedRevision) for _, data in late.received]
    found = [decode_revision(one.revision.encode()) for one in signed]
    return {one.vehicle_id: one.number for one in found}
