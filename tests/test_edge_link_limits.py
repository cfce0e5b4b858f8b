"""What a broker allows is obeyed, and what it does wrong ends a connection, never the link."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from common.messages import MAX_PAYLOAD_BYTES
from edge_agent.config import Mqtt
from edge_agent.mqtt.backoff import Delays
from edge_agent.mqtt.broker_limits import BrokerLimits, limits_of
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Event, MqttLink, Received
from edge_agent.mqtt.link_events import MESSAGES, EventQueue
from tests.conftest import eventually
from tests.mqtt_stub import Stub, acknowledge, mqtt_stub, publish

VEHICLE = "car-1"
PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
FILES = Path("/proc/self/fd")
SOON = Delays(first_s=0.01, longest_s=0.05)
Protocol = Literal["5", "3.1.1"]
Open = Callable[..., MqttLink]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with mqtt_stub() as made:
        yield made


@pytest.fixture
def open_link(stub: Stub) -> Iterator[Open]:
    links: list[MqttLink] = []

    def start(**changes: Any) -> MqttLink:
        mqtt = Mqtt(port=stub.port, **changes)
        links.append(MqttLink(VEHICLE, mqtt, b"will", random.Random(1), SOON))
        links[-1].start()
        return links[-1]

    yield start
    for link in links:
        link.stop()


def event_of(link: MqttLink) -> Event:
    event = link.next_event(20.0)
    assert event is not None
    return event


def limits_from(link: MqttLink) -> BrokerLimits:
    event = event_of(link)
    assert isinstance(event, Connected)
    return event.limits


# ---- what the CONNACK says -------------------------------------------------------------------


def test_what_the_broker_allows_is_read_off_its_connack(stub: Stub, open_link: Open) -> None:
    stub.properties = b"\x21\x00\x0a" + b"\x27\x00\x00\x10\x00" + b"\x25\x00"
    assert limits_from(open_link()) == BrokerLimits(in_flight=10, packet_bytes=4096, retains=False)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_says_nothing_allows_what_aws_does(
    open_link: Open, protocol: Protocol
) -> None:
    assert limits_from(open_link(protocol=protocol)) == limits_of(None) == BrokerLimits()


def test_a_broker_without_qos_1_is_an_outage_that_says_so(stub: Stub, open_link: Open) -> None:
    stub.properties = b"\x24\x00"
    event = event_of(open_link())
    assert isinstance(event, Disconnected)
    assert "takes no QoS 1" in event.why


def test_nothing_is_retained_where_the_broker_cannot(stub: Stub, open_link: Open) -> None:
    stub.properties = b"\x25\x00"
    link = open_link()
    event_of(link)
    link.publish("status", b"on", retain=True)
    eventually(lambda: stub.visits[0].publishes("status"), what="the status")
    assert stub.visits[0].publishes("status")[0].raw[0] & 1 == 0


def test_the_brokers_keep_alive_counts(stub: Stub, open_link: Open) -> None:
    """It says 1 s, the configuration 60: without the ping nothing would end this connection."""
    stub.properties = b"\x13\x00\x01"
    link = open_link()
    event_of(link)
    stub.answers = False
    assert isinstance(event_of(link), Disconnected)


# ---- a connection that ends takes everything with it -----------------------------------------


def test_what_had_no_puback_is_not_repeated_by_the_library(stub: Stub, open_link: Open) -> None:
    stub.acknowledges = False
    link = open_link()
    event_of(link)
    assert link.publish("trip", b"one") is not None
    eventually(lambda: stub.visits[0].publishes("trip"), what="the publish")
    stub.visits[0].cut()
    assert isinstance(event_of(link), Disconnected)
    assert event_of(link) == Connected()
    assert link.publish("trip", b"two") is not None
    eventually(lambda: stub.visits[1].publishes("trip"), what="the second publish")
    assert [packet.raw[-3:] for packet in stub.visits[1].publishes()] == [b"two"]


def test_a_line_that_answers_pings_and_no_publish_is_given_up(stub: Stub, open_link: Open) -> None:
    stub.acknowledges = False
    link = open_link(keepalive_s=1)
    event_of(link)
    link.publish("trip", b"one")
    event = event_of(link)
    assert isinstance(event, Disconnected)
    assert "answers pings and no publish" in event.why


def test_no_more_is_held_for_a_line_that_takes_nothing_than_aws_lets_be_on_the_way(
    stub: Stub, open_link: Open
) -> None:
    stub.acknowledges = False
    link = open_link()
    event_of(link)
    mids = [link.publish("status", b"on") for _ in range(150)]
    assert mids.index(None) == 100
    assert set(mids[100:]) == {None}
    eventually(lambda: len(stub.visits[0].publishes()) == 100, what="the publishes")
    acknowledge(stub.visits[0], stub.visits[0].publishes()[0])
    assert mids[0] is not None
    assert event_of(link) == Accepted(mids[0])
    assert link.publish("status", b"on") is not None


def test_a_publish_that_the_broker_refuses_is_said_once(
    stub: Stub, open_link: Open, caplog: pytest.LogCaptureFixture
) -> None:
    stub.acknowledges = False
    link = open_link()
    event_of(link)
    for number in (1, 2):
        mid = link.publish("trip", b"not mine")
        assert mid is not None
        eventually(lambda n=number: len(stub.visits[0].publishes()) == n, what="the publish")  # type: ignore[misc]
        stub.visits[0].send(b"\x40\x03" + mid.to_bytes(2, "big") + b"\x87")  # not authorised
        assert event_of(link) == Accepted(mid)  # it makes room; without a receipt it goes again
    assert caplog.text.count("publish_refused vehicle=car-1 reason='Not authorized'") == 1


@pytest.mark.parametrize("answers", [True, False])
def test_the_agent_can_stop_whatever_the_line_does(
    stub: Stub, open_link: Open, *, answers: bool
) -> None:
    link = open_link()
    event_of(link)
    stub.acknowledges = stub.answers = answers
    link.publish("status", b"farewell")
    link.stop()
    eventually(lambda: stub.visits[0].packets[-1].kind == 14, what="its DISCONNECT")
    assert stub.visits[0].packets[-2].body.endswith(b"farewell")


@pytest.mark.skipif(not FILES.exists(), reason="counts open files by /proc")
def test_connections_that_end_leave_no_open_file_behind(open_link: Open, stub: Stub) -> None:
    link = open_link()
    event_of(link)
    gc.disable()
    try:
        before = len(list(FILES.iterdir()))
        for number in range(1, 6):
            stub.visits[-1].cut()
            assert isinstance(event_of(link), Disconnected)
            assert event_of(link) == Connected()
            eventually(lambda n=number: len(stub.visits) == n + 1, what="the visit")  # type: ignore[misc]
        eventually(lambda: len(list(FILES.iterdir())) <= before, what="as many files")
    finally:
        gc.enable()


# ---- what no broker should send ----------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    "raw",
    [
        b"\xf0\x00",
        b"\x00\x00",
        b"\x30\x02\x00\x09",  # a topic longer than its packet
        b"\x32\x05\x00\x01a\x00\x00",  # packet id 0
        b"\x40\x01\x00",  # half a packet id
        b"\x20\x02\x00\x09",
        b"\x30\xff\xff\xff\xff\x7f",
        bytes(range(256)),
    ],
    ids=lambda raw: raw[:6].hex(),
)
def test_garbage_ends_the_connection_and_not_the_link(
    stub: Stub, open_link: Open, protocol: Protocol, raw: bytes
) -> None:
    link = open_link(protocol=protocol)
    event_of(link)
    stub.visits[0].send(raw)
    stub.visits[0].cut()
    eventually(lambda: len(stub.visits) > 1, what="the next connection")
    seen = [event_of(link)]
    while seen[-1] != Connected():
        seen.append(event_of(link))
    mid = link.publish("trip", b"alive")
    assert mid is not None
    while event_of(link) != Accepted(mid):
        pass


def test_a_topic_that_is_no_text_is_a_message_like_any_other(stub: Stub, open_link: Open) -> None:
    link = open_link()
    event_of(link)
    stub.visits[0].send(publish(b"twin/\xff\xfe", b"x") + publish(PARAMETERS.encode(), b"y"))
    assert event_of(link) == Received("(a topic that is no UTF-8)", b"x")
    assert event_of(link) == Received(PARAMETERS, b"y")


def test_of_a_message_that_is_too_large_no_more_is_kept_than_shows_it(
    stub: Stub, open_link: Open
) -> None:
    link = open_link(protocol="3.1.1")
    event_of(link)
    stub.visits[0].send(publish(PARAMETERS.encode(), bytes(10 * MAX_PAYLOAD_BYTES), five=False))
    event = event_of(link)
    assert isinstance(event, Received)
    assert len(event.payload) == MAX_PAYLOAD_BYTES + 1


def test_a_flood_waits_outside_and_none_of_it_is_lost(stub: Stub, open_link: Open) -> None:
    link = open_link()
    event_of(link)
    flood = [b"%d" % number for number in range(20 * MESSAGES)]
    name = PARAMETERS.encode()
    stub.visits[0].send(b"".join(publish(name, payload) for payload in flood))
    eventually(lambda: len(link._events) == MESSAGES, what="a full queue")
    assert link.publish("trip", b"ours") is not None  # the other direction is not held up
    came = [event_of(link)]
    while len([event for event in came if isinstance(event, Received)]) < len(flood):
        assert len(link._events) <= MESSAGES + 2
        came.append(event_of(link))
    assert [event.payload for event in came if isinstance(event, Received)] == flood


def test_the_agent_can_stop_in_the_middle_of_a_flood(stub: Stub, open_link: Open) -> None:
    link = open_link()
    event_of(link)
    name = PARAMETERS.encode()
    stub.visits[0].send(publish(name, b"x") * (2 * MESSAGES))
    eventually(lambda: len(link._events) == MESSAGES, what="a full queue")
    link.stop()


# ---- the queue ---------------------------------------------------------------------------------


def test_a_lost_connection_leaves_messages_and_one_word_however_often_it_is_lost() -> None:
    queue = EventQueue()
    for number in range(1000):
        queue.put(Connected())
        queue.put(Accepted(number))
        queue.put(Disconnected(f"cut {number}"))
    queue.put_message(Received(PARAMETERS, b"x"), lambda: True)
    queue.put(Disconnected("last"))
    queue.put(Connected())
    assert [queue.get(0.0) for _ in range(4)] == [
        Received(PARAMETERS, b"x"),
        Disconnected("last"),
        Connected(),
        None,
    ]


def test_whoever_waits_for_room_gets_it_as_soon_as_there_is_some() -> None:
    queue = EventQueue()
    for number in range(MESSAGES):
        queue.put_message(Received(PARAMETERS, b"%d" % number), lambda: True)
    late = threading.Thread(
        target=queue.put_message, args=(Received(PARAMETERS, b"late"), lambda: False)
    )
    late.start()
    taken = [queue.get(20.0) for _ in range(MESSAGES + 1)]
    late.join()
    assert taken[-1] == Received(PARAMETERS, b"late")
