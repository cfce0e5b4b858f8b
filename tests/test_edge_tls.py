"""Mutual TLS as AWS IoT Core and Mosquitto ask for it, against real servers."""

from __future__ import annotations

import random
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from demo.broker import BrokerTls
from edge_agent.config import Mqtt, Tls, load_config
from edge_agent.errors import LinkError
from edge_agent.mqtt.backoff import DELAYS, Delays
from edge_agent.mqtt.certificate_expiry import days_left, facts, is_urgent, told
from edge_agent.mqtt.link import Connected, Disconnected, Event, MqttLink
from edge_agent.mqtt.tls import ClosingSocket, ContextSource, alpn_of
from tests.certificates import Authority, Issued
from tests.conftest import BrokerFactory, eventually
from tests.mqtt_stub import mqtt_stub, protocol_of

VEHICLE = "car-1"
SOON = Delays(first_s=0.01, longest_s=0.05)
Protocol = Literal["5", "3.1.1"]
Open = Callable[..., MqttLink]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def open_link() -> Iterator[Open]:
    links: list[MqttLink] = []

    def start(mqtt: Mqtt, delays: Delays = SOON) -> MqttLink:
        links.append(MqttLink(VEHICLE, mqtt, b"will", random.Random(1), delays))
        links[-1].start()
        return links[-1]

    yield start
    for link in links:
        link.stop()


def tls_of(authority: Authority, issued: Issued, alpn: str | None = None) -> Tls:
    return Tls(
        str(authority.ca_file), str(issued.certificate_file), str(issued.key_file), alpn=alpn
    )


def event_of(link: MqttLink) -> Event:
    event = link.next_event(20.0)
    assert event is not None
    return event


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_server_is_told_its_name_the_protocol_and_who_the_vehicle_is(
    authority: Authority, open_link: Open, protocol: Protocol
) -> None:
    tls = tls_of(authority, authority.issue(VEHICLE), alpn="x-amzn-mqtt-ca")
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, protocol=protocol, tls=tls))
        assert event_of(link) == Connected()
        (visit,) = stub.visits
        assert (visit.client_name, visit.alpn, stub.server_names) == (
            VEHICLE,
            "x-amzn-mqtt-ca",
            ["localhost"],
        )
        assert protocol_of(visit) == {"5": 5, "3.1.1": 4}[protocol]
        assert visit.tls_version in {"TLSv1.2", "TLSv1.3"}


def test_the_name_for_aws_is_offered_on_port_443_alone_unless_configured() -> None:
    tls = Tls("ca", "cert", "key")
    names = {port: alpn_of(Mqtt(port=port, tls=tls)) for port in (443, 8883)}
    assert names == {443: "x-amzn-mqtt-ca", 8883: ""}
    assert alpn_of(Mqtt(port=443)) == ""
    assert alpn_of(Mqtt(port=443, tls=Tls("ca", "cert", "key", alpn=""))) == ""
    assert alpn_of(Mqtt(port=8883, tls=Tls("ca", "cert", "key", alpn="mqtt"))) == "mqtt"


def test_without_a_protocol_name_none_is_offered(authority: Authority, open_link: Open) -> None:
    tls = tls_of(authority, authority.issue(VEHICLE))
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, tls=tls))
        assert event_of(link) == Connected()
        assert stub.visits[0].alpn is None


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_real_broker_that_demands_certificates_lets_the_vehicle_in(
    authority: Authority,
    open_link: Open,
    mosquitto_broker_factory: BrokerFactory,
    protocol: Protocol,
) -> None:
    own = authority.issue("broker")
    broker = mosquitto_broker_factory(
        tls=BrokerTls(authority.ca_file, own.certificate_file, own.key_file)
    )
    tls = tls_of(authority, authority.issue(VEHICLE), alpn="x-amzn-mqtt-ca")
    link = open_link(Mqtt(host="localhost", port=broker.port, protocol=protocol, tls=tls))
    assert event_of(link) == Connected()


def test_a_vehicle_of_another_authority_is_refused_with_the_alert_and_asks_rarely(
    authority: Authority, open_link: Open, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other", "Another authority").issue(VEHICLE)
    slow = replace(SOON, refused_first_s=600.0)
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        mqtt = Mqtt(host="localhost", port=stub.port, tls=tls_of(authority, stranger))
        link = open_link(mqtt, slow)
        event = event_of(link)
        assert isinstance(event, Disconnected)
        assert "ALERT_UNKNOWN_CA" in event.why.upper()
        assert link.next_event(0.5) is None


@pytest.mark.parametrize("fault", ["its name", "its authority"])
def test_a_server_that_is_not_the_broker_is_told_nothing(
    authority: Authority, open_link: Open, tmp_path: Path, fault: str
) -> None:
    issued = authority.issue(VEHICLE)
    foreign = Authority(tmp_path / "other", "Another authority")
    issuer = authority if fault == "its name" else foreign
    host = "127.0.0.2" if fault == "its name" else "localhost"  # the certificate names 127.0.0.1
    with mqtt_stub((authority, issuer.issue("broker")), host="0.0.0.0") as stub:
        link = open_link(Mqtt(host=host, port=stub.port, tls=tls_of(authority, issued)))
        event = event_of(link)
        assert isinstance(event, Disconnected)
        assert "certificate verify failed" in event.why
        assert stub.visits == [] or stub.visits[0].packets == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_below_tls_1_2_nothing_is_said(authority: Authority, open_link: Open) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

    tls = tls_of(authority, authority.issue(VEHICLE))
    with mqtt_stub((authority, authority.issue("broker")), old) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, tls=tls))
        assert isinstance(event_of(link), Disconnected)
        assert stub.visits == []


def test_one_thread_alone_writes_to_the_connection(
    authority: Authority, open_link: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would mix the bytes of their packets where the line takes only a part of one."""
    writers: set[str] = set()
    send = ClosingSocket.send

    def sending(self: ClosingSocket, *arguments: Any) -> int:
        writers.add(threading.current_thread().name)
        return send(self, *arguments)

    monkeypatch.setattr(ClosingSocket, "send", sending)
    tls = tls_of(authority, authority.issue(VEHICLE))
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, tls=tls))
        assert event_of(link) == Connected()
        for _ in range(50):
            link.publish("trip", b"one")
        eventually(lambda: len(stub.visits[0].publishes()) == 50, what="all of them")
    assert writers == {"mqtt"}


# ---- renewal --------------------------------------------------------------------------------


def test_renewed_files_count_from_the_next_connection_on(
    authority: Authority, open_link: Open, tmp_path: Path
) -> None:
    first, second = authority.issue(VEHICLE), authority.issue("renewed")
    mine = Issued(tmp_path / "vehicle.crt", tmp_path / "vehicle.key")
    install(first, mine)
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, tls=tls_of(authority, mine)))
        assert event_of(link) == Connected()
        install(second, mine)
        stub.visits[0].cut()
        eventually(lambda: len(stub.visits) > 1, what="the second connection")
        eventually(lambda: stub.visits[-1].packets, what="its CONNECT")
        assert [visit.client_name for visit in stub.visits] == [VEHICLE, "renewed"]


def test_a_renewal_that_went_wrong_does_not_cut_the_vehicle_off(
    authority: Authority, open_link: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = Issued(tmp_path / "vehicle.crt", tmp_path / "vehicle.key")
    install(authority.issue(VEHICLE), mine)
    with mqtt_stub((authority, authority.issue("broker"))) as stub:
        link = open_link(Mqtt(host="localhost", port=stub.port, tls=tls_of(authority, mine)))
        assert event_of(link) == Connected()
        shutil.copy(authority.issue("other").certificate_file, mine.certificate_file)
        stub.visits[0].cut()
        eventually(lambda: len(stub.visits) > 1 and stub.visits[-1].packets, what="the second")
        assert stub.visits[-1].client_name == VEHICLE
        assert "tls_files_unusable" in caplog.text


def install(issued: Issued, place: Issued) -> None:
    shutil.copy(issued.certificate_file, place.certificate_file)
    shutil.copy(issued.key_file, place.key_file)


def test_files_that_do_not_fit_are_an_error_at_the_start(authority: Authority) -> None:
    certificate, other = authority.issue(VEHICLE), authority.issue("other")
    crossed = Issued(certificate.certificate_file, other.key_file)
    with pytest.raises(LinkError, match=r"\[mqtt.tls\] cannot be used"):
        ContextSource(Mqtt(tls=tls_of(authority, crossed)))


def test_an_encrypted_key_is_an_error_and_no_question_on_the_terminal(
    authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = authority.issue(VEHICLE)
    key = serialization.load_pem_private_key(issued.key_file.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(LinkError):
        ContextSource(Mqtt(tls=tls_of(authority, Issued(issued.certificate_file, locked))))


# ---- expiry ---------------------------------------------------------------------------------


def test_how_long_the_certificate_holds_is_told_and_urgent_in_its_last_month(
    authority: Authority,
) -> None:
    tls = tls_of(authority, authority.issue(VEHICLE))
    now = datetime.now(UTC)
    assert 0.9 < days_left(tls, now) < 1.0
    assert days_left(tls, now + timedelta(days=3)) < 0
    assert [is_urgent(days) for days in (-1.0, 29.9, 30.1)] == [True, True, False]
    assert told(-2.0).startswith("certificate EXPIRED 2 days ago")
    assert "renew it" in told(29.0)
    assert told(100.0) == "certificate holds for 100 more days"


def test_status_says_how_long_it_holds_and_complains_in_its_last_month(
    authority: Authority,
) -> None:
    tls = tls_of(authority, authority.issue(VEHICLE))
    heard: list[str] = []
    now = datetime.now(UTC)
    assert facts(Mqtt(), now, heard.append) == {}
    assert facts(Mqtt(tls=tls), now - timedelta(days=60), heard.append) == {
        "certificate_days_left": 61.0
    }
    assert heard == []
    assert facts(Mqtt(tls=tls), now, heard.append) == {"certificate_days_left": 1.0}
    assert "renew it" in heard[0]
    gone = Mqtt(tls=Tls("ca", "nowhere.crt", "key"))
    assert facts(gone, now, heard.append) == {"certificate_days_left": None}
    assert "nowhere.crt" in heard[1]


def test_the_protocol_name_is_no_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        'vehicle_id = "car-1"\nbundle = "b"\nstate = "s"\ntrusted_keys = ["k"]\n'
        '[mqtt.tls]\nca_file = "ca"\ncert_file = "/c"\nkey_file = "k"\nalpn = "mqtt"\n'
    )
    tls = load_config(path).mqtt.tls
    assert tls == Tls(str(tmp_path / "ca"), "/c", str(tmp_path / "k"), alpn="mqtt")
    assert DELAYS.longest_s == 60.0
