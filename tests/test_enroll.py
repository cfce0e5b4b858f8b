"""The fleet's authority: what it signs, what it refuses, and what a real Mosquitto makes of it."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.commands import ca_reports
from cloud.errors import AuthorityError
from cloud.security import certificate_authority
from cloud.security.certificate_authority import Order
from cloud.security.certificates import key_of
from cloud.security.mosquitto_files import access_list
from common.topics import subscription, topic
from demo.broker import PrivateBroker
from edge_agent.enrolment import Identity, install_certificate, request_certificate
from tests.certificates import Issued
from tests.conftest import BrokerFactory, Connect, eventually
from tests.support_command_line import twin_cloud
from tests.test_access_list import DEPLOY, NOT_AUTHORISED, _handshake, _shipped_configuration

Run = Callable[..., tuple[int, str, str]]
NOW = datetime.now(UTC)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`twin-cloud …`, with the authority's folder last."""

    def call(*words: object) -> tuple[int, str, str]:
        return twin_cloud(monkeypatch, capsys, *words, "--ca", tmp_path / "ca")

    return call


@dataclass
class Fleet:
    """An authority, the broker's folder, and devices that made their own keys."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca"

    @property
    def etc(self) -> Path:
        return self.folder / "etc"

    @property
    def ca_file(self) -> Path:
        return self.ca / "ca.crt"

    def vehicle(self, name: str, *, replace: bool = False) -> tuple[Any, Issued]:
        identity = Identity(self.folder / name)
        request_certificate(identity, name)
        signed = self.folder / f"{name}.crt"
        order = Order(name, "vehicle", 30)
        ca_reports.enroll(self.ca, order, identity.request, signed, NOW, replace=replace)
        install_certificate(identity, name, signed, self.ca_file, datetime.now(UTC))
        return self, Issued(identity.certificate, identity.key)

    def other(self, name: str, kind: Any, *hosts: str) -> tuple[Any, Issued]:
        certificate = self.etc / f"{'broker' if kind == 'broker' else name}.crt"
        order = Order(name, kind, 30, hosts)
        ca_reports.enroll(self.ca, order, None, certificate, NOW, replace=False)
        return self, Issued(certificate, certificate.with_suffix(".key"))

    def publish(self) -> None:
        ca_reports.publish(self.ca, self.etc, NOW)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    certificate_authority.create(tmp_path / "ca", "Test fleet", NOW)
    (tmp_path / "etc").mkdir()
    return Fleet(tmp_path)


@pytest.fixture
def broker(fleet: Fleet, mosquitto_broker_factory: BrokerFactory) -> PrivateBroker:
    fleet.other("localhost", "broker", "127.0.0.1")
    fleet.publish()
    return mosquitto_broker_factory(config_lines=_shipped_configuration(fleet.etc))


def test_who_is_enrolled_reaches_its_own_topics_and_no_others(
    fleet: Fleet, broker: PrivateBroker, connect: Connect
) -> None:
    cloud = connect(broker, "any", identity=fleet.other("twin-cloud", "service"))
    cloud.subscribe(subscription("trip"))
    vehicle = connect(broker, "any", identity=fleet.vehicle("v1"))
    assert vehicle.publish(topic("v1", "trip"), b"mine") == 0
    eventually(lambda: (topic("v1", "trip"), b"mine") in cloud.received)
    for foreign in (topic("v2", "trip"), topic("v1", "parameters"), "twin/v1/v1/other"):
        assert vehicle.publish(foreign, b"x") == NOT_AUTHORISED
    vehicle.subscribe(topic("v1", "receipt"), "#", topic("v2", "receipt"))
    assert cloud.publish(topic("v2", "receipt"), b"theirs") == 0
    assert cloud.publish(topic("v1", "receipt"), b"mine") == 0
    eventually(lambda: (topic("v1", "receipt"), b"mine") in vehicle.received)
    assert {name for name, _ in vehicle.received} == {topic("v1", "receipt")}


def test_a_second_service_has_lines_of_its_own(
    fleet: Fleet, broker: PrivateBroker, connect: Connect
) -> None:
    second = fleet.other("twin-cloud-2", "service")
    fleet.publish()
    broker.restart()
    assert connect(broker, "any", identity=second).publish(topic("v1", "receipt"), b"x") == 0


def test_a_revoked_certificate_is_refused_and_no_other(
    fleet: Fleet, broker: PrivateBroker, run: Run
) -> None:
    _, stolen = fleet.vehicle("v1")
    _, other = fleet.vehicle("v2")
    assert answer(fleet, broker, stolen) == b"\x20"
    assert run("ca", "revoke", "v1", "--reason", "key_compromise")[0] == 0
    assert run("ca", "publish", "--out", fleet.etc)[0] == 0
    assert broker._process is not None
    broker._process.send_signal(signal.SIGHUP)
    eventually(lambda: is_refused(fleet, broker, stolen), what="the list to be read again")
    assert answer(fleet, broker, other) == b"\x20"
    assert run("ca", "revoke", "v1")[0] == 4


def test_a_vehicle_whose_key_was_lost_is_enrolled_anew_and_the_old_key_is_shut_out(
    fleet: Fleet, broker: PrivateBroker
) -> None:
    _, old = fleet.vehicle("v1")
    kept = Issued(fleet.folder / "old.crt", fleet.folder / "old.key")
    old.certificate_file.rename(kept.certificate_file)
    old.key_file.rename(kept.key_file)
    with pytest.raises(AuthorityError, match="--replace"):
        fleet.vehicle("v1")
    _, new = fleet.vehicle("v1", replace=True)
    fleet.publish()
    broker.restart()
    with pytest.raises((ssl.SSLError, OSError)):
        answer(fleet, broker, kept)
    assert answer(fleet, broker, new) == b"\x20"


def test_the_same_key_again_is_a_renewal(fleet: Fleet) -> None:
    fleet.vehicle("v1")
    fleet.vehicle("v1")
    first, second = certificate_authority.load(fleet.ca).issued()
    assert first.serial != second.serial
    assert first.key == second.key
    assert first.stands(NOW.timestamp())


def is_refused(fleet: Fleet, broker: PrivateBroker, own: Issued) -> bool:
    try:
        answer(fleet, broker, own)
    except OSError:  # also what TLS says
        return True
    return False


def answer(fleet: Fleet, broker: PrivateBroker, own: Issued) -> bytes:
    context = ssl.create_default_context(cafile=str(fleet.ca_file))
    context.load_cert_chain(own.certificate_file, own.key_file)
    return _handshake(broker, context)[:1]


def request(key: Any, *names: tuple[Any, str], extension: Any = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM)


CN = NameOID.COMMON_NAME
KEY = ec.generate_private_key(ec.SECP256R1())


def damaged() -> bytes:
    """Signed by a key that is not the one inside."""
    der = x509.load_pem_x509_csr(request(KEY, (CN, "v1"))).public_bytes(Encoding.DER)
    changed = der[:-1] + bytes([der[-1] ^ 1])
    return x509.load_der_x509_csr(changed).public_bytes(Encoding.PEM)


REQUESTS: dict[str, tuple[bytes, str]] = {
    "another name": (request(KEY, (CN, "v2")), "not CN=v1"),
    "two names": (request(KEY, (CN, "v1"), (CN, "twin-cloud")), "not CN=v1"),
    "an organisation beside": (request(KEY, (CN, "v1"), (NameOID.ORGANIZATION_NAME, "x")), "CN=v1"),
    "no name": (request(KEY), "not CN=v1"),
    "a name that ends later": (request(KEY, (CN, "v1\n")), "CN=v1"),
    "other names of its own": (
        request(KEY, (CN, "v1"), extension=x509.SubjectAlternativeName([x509.DNSName("v2")])),
        "its name alone",
    ),
    "an authority": (
        request(KEY, (CN, "v1"), extension=x509.BasicConstraints(ca=True, path_length=None)),
        "its name alone",
    ),
    "a short key": (request(rsa.generate_private_key(65537, 1024), (CN, "v1")), "2048"),
    "a curve that brokers refuse": (
        request(ec.generate_private_key(ec.SECP256K1()), (CN, "v1")),
        "P-256",
    ),
    "no proof of the key": (damaged(), "does not have its key"),
    "garbage": (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "cannot be read"),
    "nothing": (b"", "cannot be read"),
}


@pytest.mark.parametrize("name", list(REQUESTS))
def test_a_request_that_is_not_exactly_for_the_vehicle_is_refused(fleet: Fleet, name: str) -> None:
    content, told = REQUESTS[name]
    there = certificate_authority.load(fleet.ca)
    with pytest.raises(AuthorityError, match=told):
        there.sign(Order("v1", "vehicle", 30), content, NOW)
    assert there.issued() == []


@pytest.mark.parametrize("name", ["twin-cloud", "twin-cloud-2", "a b", "", "v/1", "x" * 65, "v1\n"])
def test_a_vehicle_gets_no_name_that_opens_more(fleet: Fleet, name: str) -> None:
    with pytest.raises(AuthorityError, match="name"):
        certificate_authority.load(fleet.ca).sign(
            Order(name, "vehicle", 30), request(KEY, (CN, "x")), NOW
        )


def test_a_certificate_says_what_it_is_for_and_no_more(fleet: Fleet) -> None:
    _, vehicle = fleet.vehicle("v1")
    certificate = x509.load_pem_x509_certificate(vehicle.certificate_file.read_bytes())
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (certificate.not_valid_after_utc - NOW).days in {29, 30}
    assert certificate.serial_number.bit_length() > 64
    _, broker = fleet.other("localhost", "broker", "127.0.0.1")
    names = x509.load_pem_x509_certificate(
        broker.certificate_file.read_bytes()
    ).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]


def test_private_keys_are_private_and_never_written_over(
    fleet: Fleet, run: Run, tmp_path: Path
) -> None:
    assert (fleet.ca / "ca.key").stat().st_mode & 0o777 == 0o600
    before = (fleet.ca / "ca.key").read_bytes()
    code, _, said = run("ca", "create")
    assert code == 4
    assert "not overwritten" in said
    assert (fleet.ca / "ca.key").read_bytes() == before
    out = tmp_path / "etc" / "twin-cloud.crt"
    assert run("enroll", "twin-cloud", "--service", "--out", out)[0] == 0
    key = out.with_suffix(".key")
    assert key.stat().st_mode & 0o777 == 0o600
    first = key.read_bytes()
    assert run("enroll", "twin-cloud", "--service", "--out", out)[0] == 4
    assert key.read_bytes() == first
    fleet.publish()
    assert not (fleet.etc / "ca.key").exists()


def test_the_command_signs_what_the_device_made(fleet: Fleet, run: Run, tmp_path: Path) -> None:
    identity = Identity(tmp_path / "device")
    request_certificate(identity, "v1")
    out = tmp_path / "v1.crt"
    signed = ("--csr", identity.request, "--out", out)
    assert run("enroll", "v2", *signed)[0] == 4
    assert run("enroll", "v1", *signed)[0] == 0
    install_certificate(identity, "v1", out, fleet.ca_file, datetime.now(UTC))
    assert run("enroll", "v1", "--out", out)[0] == 2
    assert run("enroll", "v1", "--csr", tmp_path / "none", "--out", out)[0] == 3
    code, shown, _ = run("ca", "list", "--json")
    assert code == 0
    (item,) = json.loads(shown)
    assert (item["name"], item["kind"], item["stands"]) == ("v1", "vehicle", True)
    assert run("ca", "list")[0] == 0


def test_without_an_authority_nothing_is_signed(run: Run, tmp_path: Path) -> None:
    code, _, said = run("enroll", "twin-cloud", "--service", "--out", tmp_path / "x.crt")
    assert code == 4
    assert "there is none" in said


def test_the_shipped_access_list_is_the_one_that_is_written() -> None:
    assert access_list(["twin-cloud"]) == (DEPLOY / "twin.acl").read_text(encoding="utf-8")


def test_a_key_is_all_that_is_taken_from_a_request() -> None:
    assert key_of(request(KEY, (CN, "v1")), "v1") == KEY.public_key()
