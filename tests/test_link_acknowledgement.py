"""On the wire, against a real Mosquitto: what the service's PUBACK says, and to whom.

INVARIANT 2: a message is not acknowledged to the broker before its transaction has committed.
INVARIANT 1: so whatever the broker was not told about comes again, and is one fact.
"""

from __future__ import annotations

import queue
import random
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from cloud.config import Config, Mqtt, load_config
from cloud.intake.interpretation import Delivery
from cloud.mqtt.link import MqttLink
from cloud.mqtt.protocol import Inbox
from cloud.roles.service import Service
from cloud.store.tables import Breach, Trip, Vehicle
from common.bundle import load_bundle
from common.messages import encode
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from tests.cloud_doubles import NOW, Car, FailingCommits, write_bundle
from tests.conftest import Connect, eventually

TRIP = "twin/v1/car/trip"

# ---- not before the commit --------------------------------------------------------------------


@pytest.fixture(params=["5", "3.1.1"])
def config(request: pytest.FixtureRequest, tmp_path: Path, mosquitto: PrivateBroker) -> Config:
    """Each service started with it has the same store and the same client id."""
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "keys/private.pem", tmp_path / "keys/public.pem")
    path = tmp_path / "twin-cloud.toml"
    path.write_text(
        f'[mqtt]\nport = {mosquitto.port}\nprotocol = "{request.param}"\n'
        'client_id = "the-service"\n[store]\npath = "twin.db"\n[bundles]\npaths = ["bundle"]\n'
        '[keys]\nprivate = "keys/private.pem"\n'
    )
    return load_config(path)


Prepare = Callable[[Service], None]


@contextmanager
def serving(config: Config, prepare: Prepare = lambda _service: None) -> Iterator[Service]:
    """A service, connected; what `prepare` does to it holds for its whole life."""
    service = Service(config, lambda: NOW, lambda: None)
    prepare(service)
    service.start()
    try:
        eventually(lambda: service.link.is_connected, what="the link's connection")
        yield service
    finally:
        service.stop()


def break_database(service: Service) -> None:
    error = OperationalError("COMMIT", None, sqlite3.OperationalError("disk is full"))
    FailingCommits(service.store, error, times=10**6)


def stored(service: Service) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Ids of trips, ids of breaches, and what each vehicle's counters say of both."""
    with service.store.read() as db:
        trips = [row.message_id for row in db.exec(select(Trip))]
        breaches = [row.message_id for row in db.exec(select(Breach))]
        return trips, breaches, [(row.trips, row.breaches) for row in db.exec(select(Vehicle))]


def test_what_a_service_could_not_commit_the_broker_gives_to_its_successor(
    mosquitto: PrivateBroker, config: Config, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    car = Car("car", load_bundle(config.path("bundle")))
    with serving(config, break_database):
        vehicle = connect(mosquitto, "car")
        vehicle.publish(TRIP, encode(car.trip(5)))
        vehicle.publish("twin/v1/car/breach", encode(car.breach(5)))
        vehicle.close()  # it never offers them again
        eventually(lambda: "batch_not_stored" in caplog.text, what="the failure")
    once = ([car.trip(5).message_id], [car.breach(5).message_id], [(1, 1)])
    with serving(config) as successor:
        eventually(lambda: stored(successor) == once, what="both messages")
    with serving(config) as third:
        assert stored(third) == once


def grant_late(service: Service) -> None:
    """The SUBACK is slower than a commit, as over a long wire: it comes after the first receipt."""
    link = service.link
    assert isinstance(link, MqttLink)
    publish, granted, asked = link.publish, link._client.on_subscribe, Event()

    def publishing(*arguments: Any, **options: Any) -> bool:
        is_handed_over = publish(*arguments, **options)
        asked.set()
        return is_handed_over

    def granting(*arguments: Any) -> None:
        asked.wait(2.0)  # a link that hands nothing out before the SUBACK is never asked
        if granted is not None:
            granted(*arguments)

    link.publish = publishing  # type: ignore[method-assign]
    link._client.on_subscribe = granting


def test_what_comes_again_before_the_subscriptions_are_granted_gets_its_receipt(
    mosquitto: PrivateBroker, config: Config, connect: Connect
) -> None:
    with serving(config):
        pass  # the broker has a session for it from now on
    car, vehicle = Car("car", load_bundle(config.path("bundle"))), connect(mosquitto, "car")
    vehicle.subscribe("twin/v1/car/receipt")
    vehicle.publish(TRIP, encode(car.trip(5)))
    with serving(config, grant_late):
        eventually(lambda: vehicle.received, 5.0, "the receipt")


# ---- not on a later connection ------------------------------------------------------------------


@dataclass
class Opened:
    """A link, what it received, its connections so far, and the PUBACKs it was made to send."""

    link: MqttLink
    inbox: Inbox
    connections: list[None]
    acknowledged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        real = self.link._client.ack

        def ack(mid: int, qos: int) -> object:
            self.acknowledged.append(mid)
            return real(mid, qos)

        self.link._client.ack = ack  # type: ignore[method-assign,assignment]

    def delivery(self) -> Delivery:
        found = self.inbox.get(timeout=20.0)
        assert found is not None
        return found

    def await_connections(self, number: int) -> None:
        eventually(lambda: len(self.connections) >= number, what=f"connection {number}")


Open = Callable[[], Opened]


@pytest.fixture
def open_link(mosquitto: PrivateBroker) -> Iterator[Open]:
    """Open links with one client id; they are stopped at the end."""
    links: list[MqttLink] = []

    def call() -> Opened:
        inbox: Inbox = queue.Queue(100)
        connections: list[None] = []
        config = Mqtt(port=mosquitto.port, client_id="the-service")
        link = MqttLink(config, inbox, lambda: connections.append(None), random.Random(1))
        links.append(link)
        opened = Opened(link, inbox, connections)
        link.start()
        opened.await_connections(1)
        return opened

    yield call
    for link in links:
        link.stop()


def close_socket(opened: Opened, _broker: PrivateBroker) -> None:
    connection = opened.link._client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)


def restart_broker(_opened: Opened, broker: PrivateBroker) -> None:
    broker.restart()


@pytest.mark.parametrize("reconnect", [close_socket, restart_broker])
def test_a_delivery_is_acknowledged_on_its_own_connection_or_when_it_comes_again(
    mosquitto: PrivateBroker,
    open_link: Open,
    connect: Connect,
    reconnect: Callable[[Opened, PrivateBroker], None],
) -> None:
    opened = open_link()
    connect(mosquitto, "car").publish(TRIP, b"one")
    stale = opened.delivery()
    reconnect(opened, mosquitto)
    opened.await_connections(2)
    opened.link.acknowledge(stale)
    assert opened.acknowledged == []
    again = opened.delivery()
    assert (again.payload, again.connection != stale.connection) == (b"one", True)
    opened.link.acknowledge(again)
    assert opened.acknowledged == [again.mid]
    assert_nothing_is_left(opened, open_link, mosquitto, connect)


def assert_nothing_is_left(
    opened: Opened, open_link: Open, broker: PrivateBroker, connect: Connect
) -> None:
    """The broker has nothing for the next link but what is published after this one stopped."""
    opened.link.stop()
    connect(broker, "car").publish(TRIP, b"mark")
    assert open_link().delivery().payload == b"mark"


def test_while_the_broker_is_away_nothing_is_acknowledged(
    mosquitto: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    opened = open_link()
    connect(mosquitto, "car").publish(TRIP, b"one")
    delivery = opened.delivery()
    mosquitto.stop()
    eventually(lambda: not opened.link.is_connected, what="noticing the loss")
    opened.link.acknowledge(delivery)
    assert opened.acknowledged == []


def test_a_stale_delivery_does_not_acknowledge_another_message_that_got_its_id(
    mosquitto: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    opened = open_link()
    connect(mosquitto, "car").publish(TRIP, b"one")
    stale = opened.delivery()
    mosquitto.kill()  # and with it its memory, message ids included
    mosquitto.start()
    opened.await_connections(2)
    connect(mosquitto, "car").publish(TRIP, b"two")
    other = opened.delivery()
    assert (other.payload, other.mid) == (b"two", stale.mid)
    opened.link.acknowledge(stale)
    opened.link.stop()
    assert open_link().delivery().payload == b"two"
