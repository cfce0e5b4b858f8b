"""The MQTT link on a real broker: last will, retained parameters, reconnection, both protocols."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from demo.broker import PrivateBroker
from demo.loop import free_port
from edge_agent.config import Mqtt
from edge_agent.mqtt.backoff import DELAYS, Delays
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Event, MqttLink, Received
from tests.conftest import Connect, eventually
from tests.rude_server import rude_server

VEHICLE = "car-1"
PARAMETERS, RECEIPT = f"twin/v1/{VEHICLE}/parameters", f"twin/v1/{VEHICLE}/receipt"
STATUS = f"twin/v1/{VEHICLE}/status"


class Seen:
    """A link and every event that it has reported so far."""

    def __init__(self, broker: PrivateBroker, delays: Delays = DELAYS) -> None:
        protocol = broker.mqtt_version
        config = Mqtt(host=broker.host, port=broker.port, protocol=protocol)
        self.link = MqttLink(VEHICLE, config, b"will", random.Random(1), delays)
        self.events: list[Event] = []
        self.link.start()

    def publish(self, payload: bytes) -> int:
        mid = self.link.publish("trip", payload)
        assert mid is not None
        return mid

    def saw(self, wanted: Event | type[Event], times: int = 1) -> bool:
        while (event := self.link.next_event(0.0)) is not None:
            self.events.append(event)
        if isinstance(wanted, type):
            return sum(isinstance(event, wanted) for event in self.events) >= times
        return self.events.count(wanted) >= times

    def await_(self, wanted: Event | type[Event], times: int = 1) -> None:
        eventually(lambda: self.saw(wanted, times), what=f"{wanted} in {self.events}")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_answers_on_the_port_and_is_no_broker_is_an_outage(
    protocol: Literal["5", "3.1.1"],
) -> None:
    with rude_server() as port:
        link = MqttLink(VEHICLE, Mqtt(port=port, protocol=protocol), b"", random.Random(1))
        link.start()
        event = link.next_event(20.0)
        link.stop()
    assert isinstance(event, Disconnected)
    assert event.why.startswith(f"the broker at 127.0.0.1:{port} closed the connection")


def test_a_port_where_nobody_listens_is_an_outage_that_names_it() -> None:
    port = free_port()
    link = MqttLink(VEHICLE, Mqtt(port=port), b"", random.Random(1))
    link.start()
    event = link.next_event(20.0)
    link.stop()
    assert isinstance(event, Disconnected)
    assert event.why.startswith(f"the broker at 127.0.0.1:{port} cannot be reached (")


Open = Callable[[PrivateBroker], Seen]


@pytest.fixture
def open_link() -> Iterator[Open]:
    opened: list[Seen] = []

    def start(broker: PrivateBroker) -> Seen:
        opened.append(Seen(broker))
        return opened[-1]

    yield start
    for seen in opened:
        seen.link.stop()


@pytest.fixture(params=["mosquitto", "amqtt"])
def each_broker(request: pytest.FixtureRequest) -> PrivateBroker:
    broker: PrivateBroker = request.getfixturevalue(request.param)
    return broker


def test_messages_go_both_ways_over_either_protocol(
    each_broker: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    cloud = connect(each_broker, "cloud")
    cloud.subscribe("twin/v1/+/trip")
    seen = open_link(each_broker)
    seen.await_(Connected)
    seen.await_(Accepted(seen.publish(b"a trip")))
    eventually(lambda: cloud.received == [("twin/v1/car-1/trip", b"a trip")])
    cloud.publish(RECEIPT, b"a receipt")
    seen.await_(Received(RECEIPT, b"a receipt"))
    assert (seen.link.bytes_sent, seen.link.bytes_received) == (
        len("twin/v1/car-1/trip") + len(b"a trip"),
        len(RECEIPT) + len(b"a receipt"),
    )


def test_retained_parameters_wait_for_the_vehicle(
    each_broker: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    connect(each_broker, "cloud").publish(PARAMETERS, b"retained", retain=True)
    open_link(each_broker).await_(Received(PARAMETERS, b"retained"))


def test_after_a_restart_of_the_broker_the_link_is_back_and_hears_again(
    mosquitto: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    seen = open_link(mosquitto)
    seen.await_(Connected)
    mosquitto.kill()
    seen.await_(Disconnected)
    assert seen.link.publish("trip", b"cut off") is None  # it waits on the disk, not here
    mosquitto.start()
    seen.await_(Connected, times=2)
    seen.await_(Accepted(seen.publish(b"again")))
    connect(mosquitto, "cloud").publish(RECEIPT, b"again")
    seen.await_(Received(RECEIPT, b"again"))


def test_a_receipt_that_comes_while_the_vehicle_is_away_waits_in_its_session(
    mosquitto: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    first = open_link(mosquitto)
    first.await_(Connected)
    first.link.publish("trip", b"")  # answered after the subscription, in the order it was sent
    first.await_(Accepted)
    first.link.stop()
    connect(mosquitto, "cloud").publish(RECEIPT, b"kept")
    open_link(mosquitto).await_(Received(RECEIPT, b"kept"))


def test_without_a_broker_the_link_says_so_and_finds_it_when_it_comes(
    mosquitto: PrivateBroker, open_link: Open
) -> None:
    mosquitto.stop()
    seen = open_link(mosquitto)
    seen.await_(Disconnected, times=2)
    mosquitto.start()
    seen.await_(Connected)


def test_a_clean_stop_sends_no_last_will(
    mosquitto: PrivateBroker, open_link: Open, connect: Connect
) -> None:
    cloud = connect(mosquitto, "cloud")
    cloud.subscribe("twin/v1/+/status")
    seen = open_link(mosquitto)
    seen.await_(Connected)
    seen.link.publish("status", b"goodbye", retain=True)
    seen.link.stop()
    again = open_link(mosquitto)
    again.await_(Connected)
    again.link.publish("status", b"hello")
    eventually(lambda: (STATUS, b"hello") in cloud.received)
    assert cloud.received == [(STATUS, b"goodbye"), (STATUS, b"hello")]


VEHICLE_PROCESS = """
import random, sys, time
from edge_agent.config import Mqtt
from edge_agent.mqtt.link import Connected, MqttLink
link = MqttLink("car-1", Mqtt(port=int(sys.argv[1])), b"last will", random.Random(1))
link.start()
while link.next_event(10.0) != Connected():
    pass
print("connected", flush=True)
time.sleep(600)
"""


def test_a_killed_vehicle_is_reported_by_its_last_will_also_to_who_comes_later(
    mosquitto: PrivateBroker, connect: Connect
) -> None:
    cloud = connect(mosquitto, "cloud")
    cloud.subscribe("twin/v1/+/status")
    vehicle = subprocess.Popen(
        [sys.executable, "-c", VEHICLE_PROCESS, str(mosquitto.port)],
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert vehicle.stdout is not None
        assert vehicle.stdout.readline() == "connected\n"
        assert cloud.received == []
    finally:
        vehicle.kill()
        vehicle.communicate()
    eventually(lambda: cloud.received == [(STATUS, b"last will")])
    late = connect(mosquitto, "late")
    late.subscribe("twin/v1/+/status")
    eventually(lambda: late.received == [(STATUS, b"last will")])


def test_a_broker_that_refuses_the_vehicle_is_asked_more_rarely_than_one_that_is_away(
    mosquitto_broker_factory: Callable[..., PrivateBroker],
) -> None:
    broker = mosquitto_broker_factory(config_lines=("allow_anonymous false",))
    seen = Seen(broker, Delays(first_s=0.01, longest_s=0.01, refused_first_s=600.0))
    try:
        seen.await_(Disconnected)
        event = seen.events[0]
        assert isinstance(event, Disconnected)
        assert event.why.endswith("refuses (Not authorized)")
        assert seen.link.next_event(0.5) is None
    finally:
        seen.link.stop()
