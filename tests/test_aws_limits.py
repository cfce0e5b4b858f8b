"""AWS IoT Core's limits hold: the whole loop through a proxy that is as strict as AWS.

The proxy's own checks are tested first: each limit is broken once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from bench.mqtt_packets import Packet, Splitter
from cloud.config import Aws, load_config
from cloud.errors import LinkError
from cloud.roles.service import Service
from common.bundle import load_bundle
from common.messages import MAX_PAYLOAD_BYTES
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from edge_agent.agent import Agent
from edge_agent.config import load_config as load_agent_config
from edge_agent.service import running_agent
from tests.certificates import Authority
from tests.iot_core_limits import Conversation
from tests.iot_core_proxy import LimitsProxy, limits_proxy
from tests.mqtt_stub import publish
from tests.support_edge import VEHICLE, drive, write_bundle
from tests.support_links import TRANSPORTS, Opened, Transport, mqtt_config, open_one
from tests.waiting import eventually

# ---- the checks ---------------------------------------------------------------------------------


def packet(raw: bytes) -> Packet:
    (found,) = Splitter().feed(raw)
    return found


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def connect_packet(keep_alive: int = 60, client_id: str = "car", flags: int = 2) -> Packet:
    body = text("MQTT") + bytes([5, flags]) + keep_alive.to_bytes(2, "big") + b"\0"
    body += text(client_id)
    return packet(bytes([0x10]) + length(len(body)) + body)


def length(number: int) -> bytes:
    low, high = number % 128, number // 128
    return bytes([low | 0x80, high]) if high else bytes([low])


def subscribe_packet(*filters: str, qos: int = 1) -> Packet:
    body = b"\0\1\0" + b"".join(text(name) + bytes([qos]) for name in filters)
    return packet(b"\x82" + length(len(body)) + body)


def at_qos(number: int, qos: int = 1) -> Packet:
    body = text("t") + number.to_bytes(2, "big") + b"\0"
    return packet(bytes([0x30 | qos << 1]) + length(len(body)) + body)


def broken(*packets: Packet, gap_s: float = 1.0) -> list[str]:
    conversation = Conversation()
    for number, one in enumerate((connect_packet(), *packets)):
        conversation.sent(one, number * gap_s)
    return [problem.removeprefix("car: ") for problem in conversation.broken]


@pytest.mark.parametrize(
    ("packets", "problem"),
    [
        ([connect_packet(29)], "a keep-alive of 29 s"),
        ([connect_packet(0)], "a keep-alive of 0 s"),
        ([connect_packet(1201)], "a keep-alive of 1201 s"),
        ([connect_packet(flags=0x16)], "a last will at QoS 2"),
        ([packet(publish(b"t", b"x" * 131_073))], "a payload of 131073 bytes"),
        ([packet(publish(b"a/b/c/d/e/f/g/h/i", b""))], "a topic with 8 slashes"),
        ([packet(publish(b"t" * 257, b""))], "a topic of 257 bytes"),
        ([at_qos(1, qos=2)], "it publishes at QoS 2"),
        ([packet(b"\x62\x02\x00\x01")], "it speaks QoS 2"),
        ([at_qos(n) for n in range(1, 102)], "more than 100 unacknowledged messages"),
        ([subscribe_packet(*"abcdefghi")], "9 subscriptions in one call"),
        ([subscribe_packet(f"t{n}") for n in range(51)], "51 subscriptions"),
        ([subscribe_packet("t", qos=2)], "it subscribes at QoS 2"),
        ([subscribe_packet("a/b/c/d/e/f/g/h/i")], "a topic with 8 slashes"),
    ],
)
def test_each_limit_is_seen_when_it_is_broken(packets: list[Packet], problem: str) -> None:
    assert broken(*packets) == [problem]


def test_what_keeps_the_limits_is_not_blamed() -> None:
    largest = packet(publish(b"a/b/c/d/e/f/g/h", b"x" * 131_072))
    shared = subscribe_packet("$share/group/a/b/c/d/e/f/g/h")
    assert broken(connect_packet(30), connect_packet(1200), largest, shared) == []
    assert broken(*(at_qos(n) for n in range(1, 101))) == []


def test_publishes_and_bytes_are_counted_by_the_second() -> None:
    small, large = packet(publish(b"t", b"")), packet(publish(b"t", b"x" * 100_000))
    assert broken(*[small] * 400, gap_s=0.01) == []
    assert broken(*[small] * 400, gap_s=0.005) == ["more than 100 publishes in a second"]
    assert broken(*[large] * 30, gap_s=0.2) == []
    assert broken(*[large] * 30, gap_s=0.1) == ["more than 512 KB in a second"]


# ---- the link's pace ----------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def proxy(mosquitto: PrivateBroker, authority: Authority) -> Iterator[LimitsProxy]:
    with limits_proxy(mosquitto.port, authority) as found:
        yield found


@contextmanager
def aws_link(proxy: LimitsProxy, authority: Authority, *, limits: bool) -> Iterator[Opened]:
    config = mqtt_config("aws", proxy.port, authority, authority.issue("service"))
    opened = open_one(msgspec.structs.replace(config, aws=Aws(limits=limits)))
    opened.link.start()
    try:
        opened.await_connections(1)
        yield opened
    finally:
        opened.link.stop()


def publish_many(opened: Opened, number: int) -> None:
    confirmed = [opened.publish("twin/v1/car/receipt", b"%d" % n) for n in range(number)]
    eventually(lambda: all(one() for one in confirmed), what="every confirmation")


def test_a_burst_of_the_service_goes_out_at_aws_s_pace(
    proxy: LimitsProxy, authority: Authority
) -> None:
    with aws_link(proxy, authority, limits=True) as opened:
        publish_many(opened, 250)
    assert (proxy.broken, proxy.of("service").publishes) == ([], 250)


def test_without_the_limits_the_same_burst_breaks_them(
    proxy: LimitsProxy, authority: Authority
) -> None:
    with aws_link(proxy, authority, limits=False) as opened:
        publish_many(opened, 250)
    assert "service: more than 100 publishes in a second" in proxy.broken


def test_a_keep_alive_that_aws_does_not_take_is_an_error_at_the_start(
    authority: Authority,
) -> None:
    config = mqtt_config("aws", 1, authority, authority.issue("service"))
    with pytest.raises(LinkError, match="keepalive_s is below the 30 s"):
        open_one(msgspec.structs.replace(config, keepalive_s=29, aws=Aws(limits=True)))
    open_one(msgspec.structs.replace(config, keepalive_s=29, aws=Aws(limits=False)))


# ---- the loop -----------------------------------------------------------------------------------


class Loop:
    """A folder with an agent's and a service's configuration, both with certificates."""

    def __init__(self, folder: Path, port: int, authority: Authority, transport: Transport) -> None:
        self.folder, self._port, self._authority = folder, port, authority
        write_bundle(folder / "bundle")
        create_key_pair(folder / "private.pem", folder / "public.pem")
        (folder / "agent.toml").write_text(
            f'vehicle_id = "{VEHICLE}"\nbundle = "bundle"\nstate = "state.db"\n'
            f'trusted_keys = ["public.pem"]\n{self._mqtt(VEHICLE)}'
        )
        (folder / "cloud.toml").write_text(
            f"{self._mqtt('twin-cloud', transport)}"
            '[store]\npath = "cloud.db"\n[bundles]\npaths = ["bundle"]\n'
            '[keys]\nprivate = "private.pem"\n'
        )

    def _mqtt(self, name: str, transport: Transport | None = None) -> str:
        own = self._authority.issue(name)
        chosen = f'transport = "{transport}"\nshared_group = "ingest"\n' if transport else ""
        return (
            f'[mqtt]\nhost = "localhost"\nport = {self._port}\n{chosen}[mqtt.tls]\n'
            f'ca_file = "{self._authority.ca_file}"\ncert_file = "{own.certificate_file}"\n'
            f'key_file = "{own.key_file}"\n'
        )


@contextmanager
def serving(config: Path) -> Iterator[Service]:
    service = Service(load_config(config), time.time, lambda: None)
    service.start()
    try:
        eventually(lambda: service.link.is_connected, what="the link's connection")
        yield service
    finally:
        service.stop()


def drive_once(agent: Agent, folder: Path, number: int) -> None:
    """A whole trip of a battery that is not the bundle's, and every outcome of it."""
    for sample in drive(load_bundle(folder / "bundle"), f"trip-{number}", odometer=1000.0 * number):
        agent.take(sample)
    agent.driving.end_trip()

    def is_drained() -> bool:
        agent.poll(0.05)
        return agent.is_drained()

    eventually(is_drained, 30.0, f"the outcome of trip {number}")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_whole_loop_stays_within_aws_s_limits(
    transport: Transport, proxy: LimitsProxy, authority: Authority, tmp_path: Path
) -> None:
    loop = Loop(tmp_path, proxy.port, authority, transport)
    with (
        serving(loop.folder / "cloud.toml"),
        running_agent(load_agent_config(loop.folder / "agent.toml")) as agent,
    ):
        for number in (1, 2, 3):
            drive_once(agent, loop.folder, number)
        assert agent.twin.revision > 0
    assert proxy.broken == []
    assert {one.client_id for one in proxy.conversations} == {VEHICLE, "twin-cloud"}
    assert proxy.of(VEHICLE).publishes >= 5
    assert proxy.of("twin-cloud").publishes >= 4


def test_what_the_contract_may_send_fits() -> None:
    assert MAX_PAYLOAD_BYTES <= 128 * 1024
