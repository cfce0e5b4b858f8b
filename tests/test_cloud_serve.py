"""The whole service against real brokers: the loop, lost connections, kill -9 at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlmodel import select

from cloud.config import Config, load_config
from cloud.mqtt.link import UNACKNOWLEDGED, MqttLink
from cloud.roles.service import Service
from cloud.store import verification
from cloud.store.database import Store
from cloud.store.tables import Breach as BreachRow
from cloud.store.tables import Quarantine, RevisionRow
from cloud.store.tables import Trip as TripRow
from cloud.store.verification import Verified
from common.bundle import load_bundle
from common.messages import Breach, Receipt, SignedRevision, decode, encode
from common.revision import decode_revision
from common.signing import create_key_pair
from demo.broker import BrokerTls, PrivateBroker
from tests.certificates import Authority
from tests.cloud_doubles import NOW, Car, write_bundle
from tests.conftest import BrokerFactory, Connect, eventually
from tests.mqtt_peer import Peer
from tests.rude_server import rude_server

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Place:
    """A folder with everything that `twin-cloud serve` needs."""

    folder: Path

    def __post_init__(self) -> None:
        write_bundle(self.folder / "bundle")
        create_key_pair(self.folder / "keys/private.pem", self.folder / "keys/public.pem")

    def write(self, port: int, mqtt: str = "", api_port: int = 0) -> Path:
        path = self.folder / "twin-cloud.toml"
        path.write_text(
            f'[mqtt]\nport = {port}\n{mqtt}\n[store]\npath = "twin.db"\n'
            '[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "keys/private.pem"\n'
            f'[api]\nauth = "none"\nport = {api_port}\n'
        )
        return path

    def config(self, port: int, mqtt: str = "") -> Config:
        return load_config(self.write(port, mqtt))

    def car(self, vehicle_id: str = "car") -> Car:
        return Car(vehicle_id, load_bundle(self.folder / "bundle"))

    def rows(self) -> list[RevisionRow]:
        store = Store(self.folder / "twin.db")
        with store.read() as db:
            rows = list(db.exec(select(RevisionRow).order_by(RevisionRow.vehicle_id)))
        store.close()
        return sorted(rows, key=lambda row: (row.vehicle_id, row.number))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


Start = Callable[[Config], Service]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start services inside this process; they are stopped at the end."""
    running: list[Service] = []

    def call(config: Config) -> Service:
        service = Service(config, lambda: NOW, lambda: None)
        running.append(service)
        service.start()
        return service

    yield call
    for service in running:
        service.stop()


def wait_connected(service: Service) -> None:
    eventually(lambda: service.link.is_connected, what="the link's connection")


def offer(peer: Peer, breach: Breach) -> None:
    peer.publish(f"twin/v1/{breach.vehicle_id}/breach", encode(breach))


def receipts(peer: Peer) -> list[str]:
    got = [decode(data, Receipt) for name, data in peer.received if name.endswith("/receipt")]
    return [message_id for receipt in got for message_id in receipt.message_ids]


def numbers(peer: Peer) -> list[int]:
    """Numbers of the revisions that the peer got."""
    found = [data for name, data in peer.received if name.endswith("/parameters")]
    contents = [decode(data, SignedRevision).revision for data in found]
    return [decode_revision(content.encode()).number for content in contents]


def vehicle(connect: Connect, broker: PrivateBroker, vehicle_id: str = "car") -> Peer:
    peer = connect(broker, vehicle_id)
    peer.subscribe(f"twin/v1/{vehicle_id}/parameters", f"twin/v1/{vehicle_id}/receipt")
    return peer


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_breach_travels_up_and_its_revision_comes_down_and_stays(
    mosquitto: PrivateBroker, place: Place, start: Start, connect: Connect, protocol: str
) -> None:
    service = start(place.config(mosquitto.port, f'protocol = "{protocol}"'))
    wait_connected(service)
    car, peer = place.car(), vehicle(connect, mosquitto)
    offer(peer, car.breach(5))
    eventually(lambda: numbers(peer) == [1], what="the revision")
    eventually(lambda: receipts(peer) == [car.breach(5).message_id], what="the receipt")
    late = vehicle(connect, mosquitto, "car")
    eventually(lambda: numbers(late) == [1], what="the retained revision")


def test_the_embedded_broker_serves_as_well(
    amqtt: PrivateBroker, place: Place, start: Start, connect: Connect
) -> None:
    service = start(place.config(amqtt.port, 'protocol = "3.1.1"'))
    wait_connected(service)
    car, peer = place.car(), vehicle(connect, amqtt)
    offer(peer, car.breach(5))
    eventually(lambda: numbers(peer) == [1], what="the revision")


def test_garbage_and_good_messages_mixed_stop_nothing(
    mosquitto: PrivateBroker, place: Place, start: Start, connect: Connect
) -> None:
    service = start(place.config(mosquitto.port))
    wait_connected(service)
    car, peer = place.car(), vehicle(connect, mosquitto)
    for payload in (b"", b"\xff", b"{}", b"[1", encode(car.breach(5, schema=2)), b"x" * 100_000):
        peer.publish("twin/v1/car/breach", payload)
    peer.publish("twin/v1/other/trip", encode(car.trip(1)))
    offer(peer, car.breach(5))
    eventually(lambda: numbers(peer) == [1], what="the revision")
    with service.store.read() as db:
        assert len(db.exec(select(Quarantine)).all()) == 7


def test_messages_published_while_the_service_is_away_are_waiting_for_it(
    mosquitto: PrivateBroker, place: Place, start: Start, connect: Connect
) -> None:
    service = Service(place.config(mosquitto.port), lambda: NOW, lambda: None)
    service.start()
    wait_connected(service)
    service.stop()
    car, peer = place.car(), vehicle(connect, mosquitto)
    offer(peer, car.breach(5))
    start(place.config(mosquitto.port))
    eventually(lambda: numbers(peer) == [1], what="the revision")


def test_a_broker_that_loses_everything_gets_the_revision_again(
    mosquitto_broker_factory: BrokerFactory, place: Place, start: Start, connect: Connect
) -> None:
    broker = mosquitto_broker_factory()
    service = start(place.config(broker.port))
    wait_connected(service)
    car, peer = place.car(), vehicle(connect, broker)
    offer(peer, car.breach(5))
    eventually(lambda: numbers(peer) == [1], what="the revision")
    broker.kill()
    eventually(lambda: not service.link.is_connected, what="noticing the loss")
    broker.start()
    again = vehicle(connect, broker)
    eventually(lambda: 1 in numbers(again), what="the revision again")
    # and the same for a vehicle whose status names an older revision than it acknowledged
    assert len(place.rows()) == 1


def test_an_unreachable_broker_is_said_once_and_tried_until_it_answers(
    mosquitto_broker_factory: BrokerFactory,
    place: Place,
    start: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto_broker_factory()
    broker.stop()
    service = start(place.config(broker.port))
    eventually(lambda: "broker_unreachable" in caplog.text, what="the complaint")
    assert service.checks()["broker"]() == "there is no connection to the broker"
    assert service.checks()["database"]() is None
    broker.start()
    wait_connected(service)
    assert service.checks()["broker"]() is None
    assert caplog.text.count("broker_unreachable") == 1


def test_a_backlog_that_comes_before_the_subscriptions_are_granted_again_blocks_nothing(
    mosquitto: PrivateBroker, place: Place, connect: Connect
) -> None:
    """The broker sends it right after its CONNACK; on a slow line all of it before the SUBACK."""
    before = Service(place.config(mosquitto.port), lambda: NOW, lambda: None)
    before.start()
    wait_connected(before)
    before.stop()
    car, peer = place.car(), vehicle(connect, mosquitto)
    for trip in range(1, 2 * UNACKNOWLEDGED):
        peer.publish("twin/v1/car/trip", encode(car.trip(trip)))
    late: list[Callable[[], None]] = []
    service = Service(place.config(mosquitto.port), lambda: NOW, lambda: None)
    link = service.link
    assert isinstance(link, MqttLink)
    granted = link._client.on_subscribe
    assert granted is not None
    link._client.on_subscribe = lambda *told: late.append(lambda: granted(*told))
    service.start()
    try:
        eventually(lambda: late, what="the SUBACK")
        eventually(lambda: trips_of(service) == 2 * UNACKNOWLEDGED - 1, what="every trip")
        assert not service.link.is_connected
        eventually(lambda: received_receipts(peer) == 2 * UNACKNOWLEDGED - 1, what="every receipt")
        late[0]()
        assert service.link.is_connected
    finally:
        service.stop()


def trips_of(service: Service) -> int:
    with service.store.read() as db:
        return len(db.exec(select(TripRow)).all())


def received_receipts(peer: Peer) -> int:
    topic = "twin/v1/car/receipt"
    found = [decode(payload, Receipt) for name, payload in peer.received if name == topic]
    return len({message_id for receipt in found for message_id in receipt.message_ids})


def test_what_answers_on_the_port_and_is_no_broker_is_said_too(
    place: Place, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with rude_server() as port:
        service = start(place.config(port))
        eventually(lambda: "broker_unreachable" in caplog.text, what="the complaint")
        assert "closed the connection before it answered" in caplog.text
        assert service.checks()["broker"]() == "there is no connection to the broker"


def test_the_link_speaks_mutual_tls(
    mosquitto_broker_factory: BrokerFactory, place: Place, start: Start, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    server, own = authority.issue("broker"), authority.issue("twin-cloud")
    tls = BrokerTls(authority.ca_file, server.certificate_file, server.key_file)
    broker = mosquitto_broker_factory(tls=tls)
    lines = (
        f'[mqtt.tls]\nca_file = "{authority.ca_file}"\ncert_file = "{own.certificate_file}"\n'
        f'key_file = "{own.key_file}"'
    )
    wait_connected(start(place.config(broker.port, lines)))


def test_a_failing_database_holds_messages_back_and_loses_none(
    mosquitto: PrivateBroker,
    place: Place,
    start: Start,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from sqlite3 import OperationalError as SqliteError

    from sqlalchemy.exc import OperationalError

    from tests.cloud_doubles import FailingCommits

    service = start(place.config(mosquitto.port))
    wait_connected(service)
    error = OperationalError("COMMIT", None, SqliteError("database or disk is full"))
    commits = FailingCommits(service.store, error, times=10**6)
    car, peer = place.car(), vehicle(connect, mosquitto)
    offer(peer, car.breach(5))
    eventually(lambda: "batch_not_stored" in caplog.text, what="the failure")
    assert peer.received == []
    commits.close()
    eventually(lambda: numbers(peer) == [1], what="the revision")


@dataclass
class Fleet:
    """Vehicles that offer one breach at a time and again until its receipt, as agents do."""

    peer: Peer
    breaches: dict[str, list[Breach]]
    offered: dict[str, int] = field(default_factory=dict)

    def offer_due(self, *, again: bool = False) -> bool:
        """Offer each vehicle's next breach; with `again` also what has no receipt. False: done."""
        known = set(receipts(self.peer))
        left = False
        for vehicle_id, breaches in self.breaches.items():
            due = [i for i, breach in enumerate(breaches) if breach.message_id not in known]
            if not due:
                continue
            left = True
            if again or self.offered.get(vehicle_id) != due[0]:
                self.offered[vehicle_id] = due[0]
                offer(self.peer, breaches[due[0]])
        return left


class Served:
    """The real program in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.log = config.parent / "serve.log"
        self.seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloud.cli", "serve", "--config", str(config)],
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def text(self) -> str:
        return self.log.read_bytes()[self.seen :].decode()

    def wait_ready(self) -> str:
        eventually(lambda: "event=ready" in self.text(), 60.0, "the ready line")
        return self.text().split("api=")[1].split()[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_the_program_says_when_it_is_ready_and_ends_cleanly_on_sigterm(
    mosquitto: PrivateBroker, place: Place
) -> None:
    served = Served(place.write(mosquitto.port))
    try:
        address = served.wait_ready()
        with httpx.Client(base_url=address, trust_env=False) as client:
            assert client.get("/readyz").json()["checks"] == {
                "database": "ok",
                "migrations": "ok",
                "broker": "ok",
                "ingest": "ok",
                "worker": "ok",
                "housekeeping": "ok",
            }
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        assert "event=stopped" in served.text()
        assert served.text().count("event=ready") == 1
    finally:
        served.kill()


def test_kill_9_at_any_moment_ends_with_exactly_one_outcome_for_each_breach(
    mosquitto: PrivateBroker, place: Place, connect: Connect
) -> None:
    draw = random.Random(7)
    fleet = _fleet(mosquitto, place, connect)
    config = place.write(mosquitto.port)
    kills = 0
    served = Served(config)
    try:
        while kills < 4:
            served.wait_ready()
            patience = threading.Event()
            for _ in range(draw.randrange(1, 12)):
                fleet.offer_due(again=draw.random() < 0.3)
                patience.wait(draw.uniform(0.0, 0.01))  # any moment is as good as another
            served.kill()
            kills += 1
            served = Served(config)
        served.wait_ready()
        eventually(lambda: not fleet.offer_due(again=True), what="all receipts")
        eventually(lambda: _pending(place) == 0, what="all outcomes")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
    finally:
        served.kill()
    assert _outcomes(place) == _undisturbed(fleet, place)


def _fleet(broker: PrivateBroker, place: Place, connect: Connect) -> Fleet:
    cars = [place.car(f"car{i}") for i in range(3)]
    peer = connect(broker, "fleet")
    peer.subscribe("twin/v1/+/receipt")
    breaches = {
        car.vehicle_id: [car.breach(5 * trip + i) for trip in range(1, 11)]
        for i, car in enumerate(cars)
    }
    return Fleet(peer, breaches)


def _pending(place: Place) -> int:
    store = Store(place.folder / "twin.db")
    with store.read() as db:
        count = len(db.exec(select(BreachRow).where(BreachRow.state == "pending")).all())
    store.close()
    return count


def _outcomes(place: Place) -> list[tuple[str, int, str]]:
    """(vehicle, number, cause) of every revision; chains verified, nothing counted twice."""
    store = Store(place.folder / "twin.db")
    with store.read() as db:
        keys = verification.remembered_keys(db)
        assert all(isinstance(found, Verified) for found in verification.verify_all(db, keys))
        breaches = db.exec(select(BreachRow)).all()
    store.close()
    assert len(breaches) == 30
    rows = place.rows()
    calibrated = {row.message_id for row in breaches if row.state == "calibrated"}
    assert {row.cause_message_id for row in rows} == calibrated
    assert len(rows) == len(calibrated)
    return [(row.vehicle_id, row.number, row.cause_message_id) for row in rows]


def _undisturbed(fleet: Fleet, place: Place) -> list[tuple[str, int, str]]:
    from tests.cloud_doubles import Insides

    calm = place.folder / "calm"
    calm.mkdir()
    inside = Insides(calm, place.folder / "bundle")
    for breaches in fleet.breaches.values():
        for breach in breaches:
            inside.take(breach)
            inside.work()
    found = [
        (row.vehicle_id, row.number, row.cause_message_id)
        for vehicle_id in sorted(fleet.breaches)
        for row in inside.rows(vehicle_id)
    ]
    inside.store.close()
    return found


def test_a_worker_that_fails_is_not_ready_until_a_turn_succeeds(
    mosquitto: PrivateBroker, place: Place, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(place.config(mosquitto.port))
    wait_connected(service)
    broken = threading.Event()
    broken.set()
    real = service.worker._turning._turn

    def turn() -> None:
        if broken.is_set():
            raise OverflowError(34, "Numerical result out of range")
        real()

    monkeypatch.setattr(service.worker._turning, "_turn", turn)
    service.worker.wake()
    eventually(lambda: service.checks()["worker"]() is not None, what="the trouble")
    assert "Numerical result out of range" in str(service.checks()["worker"]())
    broken.clear()
    eventually(lambda: service.checks()["worker"]() is None, what="its end")
