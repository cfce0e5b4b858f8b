"""Invariant 6: with the shipped configuration no vehicle reads or writes another one's topics."""

from __future__ import annotations

import shutil
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.topics import DOWNWARD, UPWARD, subscription, topic
from demo.broker import PrivateBroker
from tests.certificates import Authority, Issued
from tests.conftest import BrokerFactory, Connect, eventually

DEPLOY = Path(__file__).resolve().parent.parent / "deploy" / "mosquitto"
NOT_AUTHORISED = 135
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Fleet:
    """A broker with the shipped configuration, and its authority."""

    broker: PrivateBroker
    authority: Authority

    def identity(self, name: str) -> tuple[Authority, Issued]:
        return self.authority, self.authority.issue(name)


@pytest.fixture(scope="module")
def fleet(
    mosquitto_broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory
) -> Fleet:
    folder = tmp_path_factory.mktemp("twin")
    authority = Authority(folder)
    authority.issue("broker")  # broker.crt and broker.key, as the shipped file names them
    shutil.copy(DEPLOY / "twin.acl", folder / "twin.acl")
    broker = mosquitto_broker_factory(config_lines=_shipped_configuration(folder))
    return Fleet(broker, authority)


def _shipped_configuration(folder: Path) -> tuple[str, ...]:
    """The shipped file's lines, less the listener's port and the places of state and log."""
    text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
    moved = text.replace("/etc/mosquitto/twin", str(folder))
    left_out = ("#", "listener ", "persistence_location ", "log_")
    lines = (line.strip() for line in moved.splitlines())
    return tuple(line for line in lines if line and not line.startswith(left_out))


def test_the_shipped_configuration_demands_certificates_and_the_access_list() -> None:
    text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
    for line in (
        "allow_anonymous false",
        "acl_file /etc/mosquitto/twin/twin.acl",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
    ):
        assert line in text


@pytest.mark.parametrize("kind", UPWARD)
def test_the_cloud_receives_what_a_vehicle_writes(
    fleet: Fleet, connect: Connect, kind: Any
) -> None:
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    cloud.subscribe(subscription(kind))
    vehicle = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    assert vehicle.publish(topic("v1", kind), b"mine") == 0
    eventually(lambda: (topic("v1", kind), b"mine") in cloud.received)


@pytest.mark.parametrize("kind", DOWNWARD)
def test_a_vehicle_receives_what_the_cloud_writes(
    fleet: Fleet, connect: Connect, kind: Any
) -> None:
    vehicle = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    vehicle.subscribe(topic("v1", kind))
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    assert cloud.publish(topic("v1", kind), b"yours") == 0
    eventually(lambda: (topic("v1", kind), b"yours") in vehicle.received)


@pytest.mark.parametrize("kind", [*UPWARD, *DOWNWARD])
def test_a_vehicle_cannot_write_another_vehicles_topic(
    fleet: Fleet, connect: Connect, kind: Any
) -> None:
    intruder = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    assert intruder.publish(topic("v2", kind), b"forged") == NOT_AUTHORISED


@pytest.mark.parametrize("kind", DOWNWARD)
def test_a_vehicle_cannot_write_what_only_the_cloud_may(
    fleet: Fleet, connect: Connect, kind: Any
) -> None:
    vehicle = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    assert vehicle.publish(topic("v1", kind), b"forged") == NOT_AUTHORISED


@pytest.mark.parametrize("kind", UPWARD)
def test_the_cloud_cannot_write_in_a_vehicles_name(
    fleet: Fleet, connect: Connect, kind: Any
) -> None:
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    assert cloud.publish(topic("v1", kind), b"forged") == NOT_AUTHORISED


def test_a_vehicle_cannot_read_another_vehicles_topics(fleet: Fleet, connect: Connect) -> None:
    """Whatever it subscribes to; its own last message shows that the broker has been through."""
    intruder = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    intruder.subscribe(
        "#", "twin/v1/+/+", "$SYS/#", *(topic("v2", k) for k in (*UPWARD, *DOWNWARD))
    )
    victim = connect(fleet.broker, "v2", identity=fleet.identity("v2"))
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    for kind in UPWARD:
        assert victim.publish(topic("v2", kind), b"secret") == 0
    for kind in DOWNWARD:
        assert cloud.publish(topic("v2", kind), b"secret", retain=True) == 0
    assert cloud.publish(topic("v1", "receipt"), b"last") == 0
    eventually(lambda: (topic("v1", "receipt"), b"last") in intruder.received)
    assert {name for name, _ in intruder.received} == {topic("v1", "receipt")}


def test_a_retained_message_of_another_vehicle_is_not_delivered_on_subscription(
    fleet: Fleet, connect: Connect
) -> None:
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    assert cloud.publish(topic("v2", "parameters"), b"secret", retain=True) == 0
    intruder = connect(fleet.broker, "v1", identity=fleet.identity("v1"))
    intruder.subscribe(topic("v2", "parameters"), topic("v1", "receipt"))
    assert cloud.publish(topic("v1", "receipt"), b"last") == 0
    eventually(lambda: (topic("v1", "receipt"), b"last") in intruder.received)
    assert [name for name, _ in intruder.received] == [topic("v1", "receipt")]


def test_a_vehicle_that_claims_anothers_client_id_gets_neither_its_session_nor_its_place(
    fleet: Fleet, connect: Connect
) -> None:
    parked = connect(fleet.broker, "v2", identity=fleet.identity("v2"), keeps_session=True)
    parked.subscribe(topic("v2", "receipt"))
    parked.close()
    cloud = connect(fleet.broker, "cloud", identity=fleet.identity("twin-cloud"))
    assert cloud.publish(topic("v2", "receipt"), b"queued") == 0
    intruder = connect(fleet.broker, "v2", identity=fleet.identity("v1"), keeps_session=True)
    back = connect(fleet.broker, "v2", identity=fleet.identity("v2"), keeps_session=True)
    eventually(lambda: (topic("v2", "receipt"), b"queued") in back.received)
    assert intruder.connected
    assert intruder.received == []


def test_a_client_without_a_certificate_is_refused(fleet: Fleet) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        _handshake(fleet.broker, _trusting(fleet.authority))


def test_a_certificate_of_a_foreign_authority_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "Foreign authority").issue("v1")
    context = _trusting(fleet.authority)
    context.load_cert_chain(foreign.certificate_file, foreign.key_file)
    with pytest.raises((ssl.SSLError, OSError)):
        _handshake(fleet.broker, context)


def test_a_forged_authority_of_the_same_name_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    forged = Authority(tmp_path, "Test authority").issue("v1")
    context = _trusting(fleet.authority)
    context.load_cert_chain(forged.certificate_file, forged.key_file)
    with pytest.raises((ssl.SSLError, OSError)):
        _handshake(fleet.broker, context)


def test_the_authoritys_own_certificates_are_let_in(fleet: Fleet) -> None:
    own = fleet.authority.issue("v1")
    context = _trusting(fleet.authority)
    context.load_cert_chain(own.certificate_file, own.key_file)
    assert _handshake(fleet.broker, context)[:1] == b"\x20"  # CONNACK


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


def _handshake(broker: PrivateBroker, context: ssl.SSLContext) -> bytes:
    """TLS, an MQTT 3.1.1 CONNECT, and the first bytes of the answer."""
    name = b"v1"
    head = b"\x00\x04MQTT\x04\x02\x00\x3c"
    body = head + len(name).to_bytes(2, "big") + name
    with (
        socket.create_connection((broker.host, broker.port), DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"\x10" + bytes([len(body)]) + body)
        answer = secured.recv(4)
    if not answer:
        raise ConnectionResetError
    return answer
