"""What every link promises, whichever client carries it: one suite over both, real Mosquittos.

INVARIANT 2: nothing is acknowledged to the broker before `acknowledge` is called.
INVARIANT 1: so whatever the broker was not told about comes again, whoever was killed.
"""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud.config import Mqtt
from cloud.errors import LinkError
from cloud.mqtt import aws_client, link
from cloud.mqtt.filters import filters
from cloud.mqtt.protocol import Link
from cloud.mqtt.session import GONE_S, Session
from common.messages import MAX_PAYLOAD_BYTES
from common.topics import DOWNWARD, UPWARD
from demo.broker import PrivateBroker
from tests.certificates import Authority, Issued
from tests.conftest import BrokerFactory, eventually
from tests.mqtt_peer import Connect, Peer
from tests.mqtt_stub import Stub, mqtt_stub, publish
from tests.support_links import (
    TRANSPORTS,
    Opened,
    Transport,
    broker_tls,
    mqtt_config,
    open_one,
)

ROOT = Path(__file__).resolve().parent.parent
TRIP = "twin/v1/car/trip"
AGREED = {"paho": link.UNACKNOWLEDGED, "aws": aws_client.UNACKNOWLEDGED}


@dataclass
class Line:
    """One transport to one broker, which takes certificates of one authority."""

    transport: Transport
    broker: PrivateBroker
    authority: Authority

    def config(self, client_id: str = "service", group: str | None = None) -> Mqtt:
        own = self.authority.issue("service")
        return mqtt_config(self.transport, self.broker.port, self.authority, own, client_id, group)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    found: Transport = request.param
    return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def line(
    transport: Transport, authority: Authority, mosquitto_broker_factory: BrokerFactory
) -> Line:
    broker = mosquitto_broker_factory(tls=broker_tls(authority))
    return Line(transport, broker, authority)


Open = Callable[..., Opened]


@pytest.fixture
def open_link(line: Line) -> Iterator[Open]:
    """Open links, connected; they are stopped at the end."""
    links: list[Link] = []

    def call(
        config: Mqtt | None = None, inbox_size: int = 1024, session: Session | None = None
    ) -> Opened:
        opened = open_one(config or line.config(), inbox_size, session)
        links.append(opened.link)
        opened.link.start()
        opened.await_connections(1)
        return opened

    yield call
    for one in links:
        one.stop()


@pytest.fixture
def car(line: Line, connect: Connect) -> Peer:
    return vehicle(line, connect)


def vehicle(line: Line, connect: Connect, name: str = "car") -> Peer:
    return connect(line.broker, name, identity=(line.authority, line.authority.issue(name)))


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# ---- messages -------------------------------------------------------------------------------


def test_every_kind_comes_up_and_goes_down(open_link: Open, car: Peer) -> None:
    opened = open_link()
    for kind in UPWARD:
        assert car.publish(f"twin/v1/car/{kind}", kind.encode()) == 0
    found = opened.take(len(UPWARD))
    assert {(one.topic, one.payload) for one in found} == {
        (f"twin/v1/car/{kind}", kind.encode()) for kind in UPWARD
    }
    assert {(one.qos, one.retained) for one in found} == {(1, False)}
    car.subscribe(*(f"twin/v1/car/{kind}" for kind in DOWNWARD))
    confirmed = [opened.publish(f"twin/v1/car/{kind}", kind.encode()) for kind in DOWNWARD]
    eventually(lambda: len(car.received) == len(DOWNWARD), what="every kind at the vehicle")
    eventually(lambda: all(one() for one in confirmed), what="every confirmation")


def test_messages_of_a_vehicle_arrive_in_its_order(open_link: Open, car: Peer) -> None:
    opened = open_link()
    car.publish_all(TRIP, numbers(300))
    assert [one.payload for one in opened.take(300)] == numbers(300)


def test_the_newest_retained_message_is_the_last_one_handed_over(
    line: Line, open_link: Open, connect: Connect
) -> None:
    opened = open_link()
    sent = [opened.publish("twin/v1/car/parameters", b"%d" % n, retain=True) for n in range(50)]
    eventually(lambda: all(one() for one in sent), what="every confirmation")
    late = vehicle(line, connect, "car")
    late.subscribe("twin/v1/car/parameters")
    eventually(lambda: late.received, what="the retained message")
    assert late.received == [("twin/v1/car/parameters", b"49")]


def test_what_was_retained_before_the_link_came_is_marked_so(open_link: Open, car: Peer) -> None:
    car.publish("twin/v1/car/status", b"online", retain=True)
    (found,) = open_link().take(1)
    assert (found.payload, found.retained) == (b"online", True)


def test_the_largest_message_goes_through_both_ways(open_link: Open, car: Peer) -> None:
    opened, whole = open_link(), b"x" * (MAX_PAYLOAD_BYTES - 64)
    car.publish(TRIP, whole)
    assert opened.take(1)[0].payload == whole
    car.subscribe("twin/v1/car/chunk")
    opened.publish("twin/v1/car/chunk", whole)
    eventually(lambda: car.received == [("twin/v1/car/chunk", whole)], what="the same bytes")


def test_of_a_larger_message_only_as_much_is_kept_as_tells_that_it_is(
    transport: Transport,
    authority: Authority,
    mosquitto_broker_factory: BrokerFactory,
    connect: Connect,
) -> None:
    lenient = ("message_size_limit 1000000",)
    broker = mosquitto_broker_factory(tls=broker_tls(authority), config_lines=lenient)
    line = Line(transport, broker, authority)
    opened = open_one(line.config())
    opened.link.start()
    try:
        opened.await_connections(1)
        vehicle(line, connect).publish(TRIP, b"x" * 500_000)
        assert len(opened.take(1)[0].payload) == MAX_PAYLOAD_BYTES + 1
    finally:
        opened.link.stop()


def test_an_empty_message_is_a_message(open_link: Open, car: Peer) -> None:
    opened = open_link()
    car.publish(TRIP, b"")
    assert opened.take(1)[0].payload == b""


# ---- acknowledgements -----------------------------------------------------------------------


def test_what_is_not_acknowledged_comes_again_to_the_next_link(open_link: Open, car: Peer) -> None:
    first = open_link()
    for payload in (b"one", b"two", b"three"):
        car.publish(TRIP, payload)
    one, two, three = (first.delivery() for _ in range(3))
    first.link.acknowledge(two)
    car.publish(TRIP, b"four")
    assert first.delivery().payload == b"four"
    first.link.stop()
    assert [one.payload, three.payload, b"four"] == [x.payload for x in open_link().take(3)]


def test_what_is_acknowledged_does_not(open_link: Open, car: Peer) -> None:
    first = open_link()
    car.publish(TRIP, b"one")
    first.take(1)
    first.link.stop()
    car.publish(TRIP, b"mark")
    assert open_link().delivery().payload == b"mark"


def test_an_acknowledgement_after_its_connection_says_nothing(
    line: Line, open_link: Open, car: Peer
) -> None:
    opened = open_link()
    car.publish(TRIP, b"one")
    stale = opened.delivery()
    line.broker.restart()
    opened.await_connections(2)
    opened.link.acknowledge(stale)
    again = opened.delivery()
    assert (again.payload, again.connection != stale.connection) == (b"one", True)
    opened.link.stop()
    assert open_link().take(1)[0].payload == b"one"


def test_acknowledged_twice_is_acknowledged_once(open_link: Open, car: Peer) -> None:
    opened = open_link()
    car.publish(TRIP, b"one")
    (found,) = opened.take(1)
    opened.link.acknowledge(found)
    car.publish(TRIP, b"two")
    second = opened.delivery()
    opened.link.acknowledge(found)
    opened.link.stop()
    assert open_link().take(1)[0].payload == second.payload


# ---- faults ---------------------------------------------------------------------------------


def test_a_restarted_broker_gives_what_it_kept(line: Line, open_link: Open, car: Peer) -> None:
    opened = open_link()
    line.broker.restart()
    opened.await_connections(2)
    eventually(lambda: car.connected, what="the vehicle's connection")
    car.publish(TRIP, b"after")
    assert opened.take(1)[0].payload == b"after"


def test_a_killed_broker_is_found_again(line: Line, open_link: Open, connect: Connect) -> None:
    opened = open_link()
    line.broker.kill()
    eventually(lambda: not opened.link.is_connected, what="noticing the loss")
    assert not opened.link.publish("twin/v1/car/receipt", b"", lambda: None)
    line.broker.start()
    opened.await_connections(2)
    vehicle(line, connect, "other").publish(TRIP, b"after")
    assert opened.take(1)[0].payload == b"after"


def test_what_was_handed_over_when_the_broker_left_is_confirmed_by_the_next(
    line: Line, open_link: Open, connect: Connect
) -> None:
    opened = open_link()
    confirmed = [
        opened.publish("twin/v1/car/parameters", b"%d" % n, retain=True) for n in range(200)
    ]
    line.broker.restart()  # not killed: that would lose what it has confirmed
    opened.await_connections(2)
    eventually(lambda: all(one() for one in confirmed), what="every confirmation")
    late = vehicle(line, connect, "late")
    late.subscribe("twin/v1/car/parameters")
    eventually(lambda: late.received == [("twin/v1/car/parameters", b"199")], what="the newest")


def test_an_outage_is_told_once(
    line: Line, open_link: Open, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_link()
    line.broker.kill()
    eventually(lambda: "broker_unreachable" in caplog.text, what="the complaint")
    line.broker.start()
    opened.await_connections(2)
    assert [caplog.text.count(f"broker_{what}") for what in ("disconnected", "unreachable")] == [
        1, 1,
    ]  # fmt: skip


def test_what_a_killed_service_had_not_committed_its_successor_gets(
    line: Line, open_link: Open, connect: Connect, tmp_path: Path
) -> None:
    car = vehicle(line, connect)
    with uncommitting(line, tmp_path, 20) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "connected\n"
        car.publish_all(TRIP, numbers(20))
        assert doomed.stdout.readline() == "received\n"
        doomed.kill()
    assert [one.payload for one in open_link().take(20)] == numbers(20)


@contextmanager
def uncommitting(line: Line, folder: Path, number: int) -> Iterator[subprocess.Popen[str]]:
    """A process with the link's client id; killed at the latest at the end."""
    tls, path = line.config().tls, folder / "twin-cloud.toml"
    assert tls is not None
    path.write_text(
        f'[mqtt]\nhost = "localhost"\nport = {line.broker.port}\nclient_id = "service"\n'
        f'transport = "{line.transport}"\n[mqtt.aws]\nlimits = false\n[mqtt.tls]\n'
        f'ca_file = "{tls.ca_file}"\ncert_file = "{tls.cert_file}"\nkey_file = "{tls.key_file}"\n'
        '[store]\npath = "d"\n[bundles]\npaths = ["b"]\n[keys]\nprivate = "k"\n'
    )
    command = [sys.executable, "-m", "tests.link_until_killed", str(path), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- back-pressure --------------------------------------------------------------------------


def test_a_full_inbox_holds_the_broker_back_and_nothing_is_lost(open_link: Open, car: Peer) -> None:
    opened = open_link(inbox_size=5)
    car.publish_all(TRIP, numbers(400))
    eventually(opened.inbox.full, what="the full inbox")
    assert [one.payload for one in opened.take(400)] == numbers(400)


def test_without_acknowledgements_the_broker_sends_no_more_than_was_agreed(
    line: Line, open_link: Open, car: Peer
) -> None:
    opened, agreed = open_link(), AGREED[line.transport]
    car.publish_all(TRIP, numbers(agreed + 50))
    held = [opened.delivery() for _ in range(agreed)]
    assert opened.inbox.empty()
    opened.link.acknowledge(held[0])
    assert opened.delivery().payload == b"%d" % agreed


def test_a_link_that_stops_leaves_a_full_inbox_as_it_is(open_link: Open, car: Peer) -> None:
    opened = open_link(inbox_size=1)
    for payload in (b"one", b"two", b"three"):
        car.publish(TRIP, payload)
    eventually(opened.inbox.full, what="the full inbox")
    opened.link.stop()
    assert [one.payload for one in open_link().take(3)] == [b"one", b"two", b"three"]


# ---- bad peers ------------------------------------------------------------------------------


@contextmanager
def linked_to_stub(transport: Transport, authority: Authority) -> Iterator[tuple[Opened, Stub]]:
    with mqtt_stub((authority, authority.issue("stub"))) as stub:
        own = authority.issue("service")
        opened = open_one(mqtt_config(transport, stub.port, authority, own))
        try:
            yield opened, stub
        finally:
            opened.link.stop()


def test_refused_subscriptions_are_said_and_the_link_is_not_ready(
    transport: Transport, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with linked_to_stub(transport, authority) as (opened, stub):
        stub.granted = 0x87
        opened.link.start()
        eventually(lambda: "it refuses the subscriptions" in caplog.text, what="the complaint")
        assert not opened.link.is_connected
        assert not opened.link.publish("twin/v1/car/parameters", b"", lambda: None, retain=True)


# What AWS's client cannot decode it reports to Python as an exception that nobody could catch.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_topic_that_is_no_utf_8_stops_nothing_and_names_no_vehicle(
    transport: Transport, authority: Authority
) -> None:
    with linked_to_stub(transport, authority) as (opened, stub):
        opened.link.start()
        opened.await_connections(1)
        stub.visits[-1].send(publish(b"twin/v1/\xff\xfe/trip", b"bad"))
        stub.visits[-1].send(publish(TRIP.encode(), b"good"))
        topics = [opened.delivery().topic]
        if topics[0] != TRIP:
            topics.append(opened.delivery().topic)
        unreadable = [] if transport == "aws" else ["(a topic that is no UTF-8)"]
        assert topics == [*unreadable, TRIP]


def test_what_the_broker_refuses_is_said_and_confirmed(
    line: Line, mosquitto_broker_factory: BrokerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    acl = line.broker.folder / "acl"
    acl.write_text("topic read twin/v1/#\n")
    strict = mosquitto_broker_factory(
        tls=broker_tls(line.authority), config_lines=(f"acl_file {acl}",)
    )
    opened = open_one(Line(line.transport, strict, line.authority).config())
    opened.link.start()
    try:
        opened.await_connections(1)
        is_confirmed = opened.publish("twin/v1/car/receipt", b"one")
        eventually(is_confirmed, what="the confirmation")
        assert "publish_refused" in caplog.text
    finally:
        opened.link.stop()


# ---- two services -------------------------------------------------------------------------


def test_services_of_a_group_divide_the_messages_and_each_goes_to_one(
    line: Line, open_link: Open, car: Peer
) -> None:
    first, second = (open_link(line.config(name, "ingest")) for name in ("one", "two"))
    car.publish_all(TRIP, numbers(60))
    both = (first, second)
    eventually(lambda: sum(one.inbox.qsize() for one in both) >= 60, what="all messages")
    shares = [[one.payload for one in opened.take(opened.inbox.qsize())] for opened in both]
    assert sorted(shares[0] + shares[1]) == sorted(numbers(60))
    assert min(map(len, shares)) > 0


def test_what_one_of_a_group_left_unacknowledged_is_not_lost(
    line: Line, open_link: Open, car: Peer
) -> None:
    leaver, stayer = (open_link(line.config(name, "ingest")) for name in ("one", "two"))
    car.publish_all(TRIP, numbers(40))
    both = (leaver, stayer)
    eventually(lambda: sum(one.inbox.qsize() for one in both) >= 40, what="all messages")
    got = {one.payload for one in stayer.take(stayer.inbox.qsize())}
    leaver.link.stop()
    back = open_link(line.config("one", "ingest"))
    got |= {one.payload for one in back.take(40 - len(got))}
    assert got == set(numbers(40))


def test_who_leaves_a_group_for_good_gets_nothing_more_and_leaves_nothing_open(
    line: Line, open_link: Open, car: Peer
) -> None:
    leaver = open_link(session=Session("one", group_filters(), GONE_S, leaves=True))
    stayer = open_link(session=Session("two", group_filters(), GONE_S, leaves=True))
    leaver.link.leave()
    eventually(lambda: leads_to(car, stayer), what="the leaver's share of the group")
    car.publish_all(TRIP, numbers(20))
    assert [one.payload for one in stayer.take(20)] == numbers(20)
    assert all(one.payload == b"probe" for one in leaver.take(leaver.inbox.qsize()))


def group_filters() -> tuple[str, ...]:
    return tuple(filters("ingest"))


def leads_to(car: Peer, opened: Opened) -> bool:
    """Whether both of two messages in a row reach it: of two members each would get one."""
    car.publish_all(TRIP, [b"probe"] * 2)
    try:
        for _ in range(2):
            opened.link.acknowledge(opened.delivery(0.5))
    except queue.Empty:
        return False
    return True


def test_a_process_that_only_publishes_is_ready_without_subscriptions(
    line: Line, open_link: Open, connect: Connect
) -> None:
    worker = open_link(session=Session("worker", (), 0))
    assert worker.link.is_connected
    is_confirmed = worker.publish("twin/v1/car/parameters", b"one", retain=True)
    eventually(is_confirmed, what="the confirmation")
    line.broker.restart()
    worker.await_connections(2)
    eventually(worker.publish("twin/v1/car/parameters", b"two", retain=True), what="the second")
    late = vehicle(line, connect)
    late.subscribe("twin/v1/car/parameters")
    eventually(lambda: late.received == [("twin/v1/car/parameters", b"two")], what="the newest")


# ---- configuration --------------------------------------------------------------------------


def test_aws_s_client_needs_a_certificate_or_a_region(transport: Transport) -> None:
    if transport == "aws":
        with pytest.raises(LinkError, match=r"cert_file and key_file, or .* sigv4_region"):
            open_one(Mqtt(transport="aws"))


def test_files_that_do_not_fit_are_an_error_at_the_start(
    transport: Transport, authority: Authority
) -> None:
    certificate, other = authority.issue("service"), authority.issue("other")
    crossed = Issued(certificate.certificate_file, other.key_file)
    with pytest.raises(LinkError, match=r"TLS files cannot be used .*service\.crt"):
        open_one(mqtt_config(transport, 1, authority, crossed))


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "cloud.mqtt.aws_link", raising=False)
    monkeypatch.delitem(sys.modules, "cloud.mqtt.aws_client", raising=False)
    monkeypatch.setitem(sys.modules, "awsiot", None)
    with pytest.raises(LinkError, match=r"living-twin\[aws\]"):
        open_one(Mqtt(transport="aws"))
