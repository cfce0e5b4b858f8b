"""Enrolment: the key is made on the device and stays; only a certificate that fits goes in."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from demo.broker import BrokerTls
from demo.loop import free_port
from edge_agent.cli import main
from edge_agent.enrolment import Identity, request_certificate
from edge_agent.errors import EnrolmentError
from tests.certificates import Authority
from tests.conftest import BrokerFactory, Connect, eventually
from tests.support_edge import VEHICLE
from tests.test_edge_cli import AGENT, ENVIRONMENT, Installation


@pytest.fixture
def device(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "device", free_port())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def enroll(device: Installation, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, in this process: starting one for each step would take most of the time."""
    typed = ["enroll", *map(str, arguments), "--config", str(device.config)]
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        try:
            code = main(typed)
        except SystemExit as usage:
            code = int(str(usage.code))
    return subprocess.CompletedProcess(typed, code, stdout.getvalue(), stderr.getvalue())


def tls(device: Installation) -> Path:
    return device.folder / "tls"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_first_step_makes_a_key_for_this_device_alone_and_a_request(
    device: Installation,
) -> None:
    found = enroll(device, "--vehicle", VEHICLE)
    assert found.returncode == 0, found.stderr
    assert sorted(contents(tls(device))) == ["vehicle.csr", "vehicle.key"]
    assert stat.S_IMODE(tls(device).stat().st_mode) == 0o700
    assert stat.S_IMODE((tls(device) / "vehicle.key").stat().st_mode) == 0o600
    key = serialization.load_pem_private_key((tls(device) / "vehicle.key").read_bytes(), None)
    request = x509.load_pem_x509_csr((tls(device) / "vehicle.csr").read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert request.public_key() == key.public_key()
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == f"CN={VEHICLE}"
    assert str(tls(device) / "vehicle.csr") in found.stdout
    assert "PRIVATE" not in found.stdout + found.stderr


def test_a_key_is_never_made_over_another_one(device: Installation) -> None:
    enroll(device, "--vehicle", VEHICLE)
    before = (tls(device) / "vehicle.key").read_bytes()
    (tls(device) / "vehicle.csr").unlink()  # as if the power had gone before it was written
    again = enroll(device, "--vehicle", VEHICLE)
    assert (again.returncode, "kept as it was" in again.stdout) == (0, True)
    assert (tls(device) / "vehicle.key").read_bytes() == before
    assert (tls(device) / "vehicle.csr").exists()


def test_two_enrolments_at_once_leave_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's key appears after this one has looked, and before it writes."""
    identity = Identity(tmp_path / "tls")
    make = ec.generate_private_key

    def slowly(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        identity.key.write_bytes(b"the other one's")
        return make(curve)

    monkeypatch.setattr(ec, "generate_private_key", slowly)
    with pytest.raises(EnrolmentError, match="File exists"):
        request_certificate(identity, VEHICLE)
    assert contents(identity.folder) == {"vehicle.key": b"the other one's"}


def test_the_key_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity(tmp_path / "tls")
    steps: list[str] = []
    sync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def linked(source: Path, target: Path) -> None:
        steps.append(f"link {target.name}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    request_certificate(identity, VEHICLE)
    assert steps[:3] == ["sync vehicle.key.new", "link vehicle.key", "sync tls"]


@pytest.mark.parametrize("name", ["", "car 1", "car/+", "a" * 65])
def test_a_name_that_is_no_vehicle_is_refused(device: Installation, name: str) -> None:
    found = enroll(device, "--vehicle", name)
    assert found.returncode == 1
    assert "is no valid vehicle_id" in found.stderr
    assert not tls(device).exists()


def test_the_first_step_says_when_the_configuration_names_another_vehicle(
    device: Installation,
) -> None:
    assert 'vehicle_id = "car-2"' in enroll(device, "--vehicle", "car-2").stdout
    assert "vehicle_id" not in enroll(device, "--vehicle", VEHICLE).stdout


def test_the_second_step_installs_what_was_signed_and_tells_what_to_set(
    device: Installation, authority: Authority
) -> None:
    enroll(device, "--vehicle", VEHICLE)
    signed = authority.sign(tls(device) / "vehicle.csr")
    found = enroll(device, "--certificate", signed, "--ca", authority.ca_file)
    assert found.returncode == 0, found.stderr
    assert (tls(device) / "vehicle.crt").read_bytes() == signed.read_bytes()
    assert (tls(device) / "ca.crt").read_bytes() == authority.ca_file.read_bytes()
    lines = found.stdout[found.stdout.index("[mqtt.tls]") :]
    device.config.write_text(device.config.read_text() + lines)
    checked = device.run("check")
    assert (checked.returncode, "mutual TLS" in checked.stdout) == (0, True), checked.stderr
    again = enroll(device, "--certificate", signed)
    assert "the configuration names it already" in again.stdout


def of_another_key(device: Installation, authority: Authority) -> Path:
    return authority.issue(VEHICLE).certificate_file


def of_another_vehicle(device: Installation, authority: Authority) -> Path:
    enroll(device, "--vehicle", "car-2")
    return authority.sign(tls(device) / "vehicle.csr")


def expired(device: Installation, authority: Authority) -> Path:
    return authority.sign(tls(device) / "vehicle.csr", days=(-2, -1))


def not_yet_valid(device: Installation, authority: Authority) -> Path:
    return authority.sign(tls(device) / "vehicle.csr", days=(1, 2))


def for_a_server(device: Installation, authority: Authority) -> Path:
    return authority.sign(tls(device) / "vehicle.csr", usage=ExtendedKeyUsageOID.SERVER_AUTH)


def the_request_itself(device: Installation, authority: Authority) -> Path:
    return tls(device) / "vehicle.csr"


def missing(device: Installation, authority: Authority) -> Path:
    return device.folder / "none.crt"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (of_another_key, "was not made for this device's key"),
        (of_another_vehicle, "is the certificate of car-2, and the configuration says vehicle_id"),
        (expired, "this device's clock says"),
        (not_yet_valid, "this device's clock says"),
        (for_a_server, "extendedKeyUsage = clientAuth"),
        (the_request_itself, "holds no certificate in PEM form"),
        (missing, "No such file"),
    ],
)
def test_a_certificate_that_does_not_fit_changes_nothing(
    device: Installation,
    authority: Authority,
    make: Callable[[Installation, Authority], Path],
    says: str,
) -> None:
    enroll(device, "--vehicle", VEHICLE)
    good = authority.sign(tls(device) / "vehicle.csr")
    assert enroll(device, "--certificate", good, "--ca", authority.ca_file).returncode == 0
    bad = make(device, authority)
    before = contents(tls(device))
    found = enroll(device, "--certificate", bad)
    assert (found.returncode, found.stdout) == (1, "")
    assert says in found.stderr
    assert "Traceback" not in found.stderr
    assert contents(tls(device)) == before


def test_an_authority_that_does_not_fit_changes_nothing(
    device: Installation, authority: Authority
) -> None:
    enroll(device, "--vehicle", VEHICLE)
    signed = authority.sign(tls(device) / "vehicle.csr")
    found = enroll(device, "--certificate", signed, "--ca", device.table)
    assert (found.returncode, "holds no certificate" in found.stderr) == (1, True)
    assert not (tls(device) / "vehicle.crt").exists()


def test_a_certificate_before_any_key_is_told_what_comes_first(
    device: Installation, authority: Authority
) -> None:
    found = enroll(device, "--certificate", authority.issue(VEHICLE).certificate_file)
    assert found.returncode == 1
    assert "There is no key" in found.stderr
    assert "edge-agent enroll --vehicle" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 2), (("--vehicle", "a", "--certificate", "b"), 2)]
)
def test_one_step_at_a_time(device: Installation, arguments: tuple[str, ...], code: int) -> None:
    assert enroll(device, *arguments).returncode == code


def test_an_enrolled_vehicle_is_let_in_by_mosquitto_and_a_stranger_is_not(
    device: Installation,
    authority: Authority,
    mosquitto_broker_factory: BrokerFactory,
    connect: Connect,
) -> None:
    server = authority.issue("broker")
    broker = mosquitto_broker_factory(
        tls=BrokerTls(authority.ca_file, server.certificate_file, server.key_file),
    )
    enroll(device, "--vehicle", VEHICLE)
    signed = authority.sign(tls(device) / "vehicle.csr")
    found = enroll(device, "--certificate", signed, "--ca", authority.ca_file)
    lines = found.stdout[found.stdout.index("[mqtt.tls]") :]
    text = device.config.read_text().replace(f"port = {device.port}", f"port = {broker.port}")
    device.config.write_text(text + lines)
    cloud = connect(broker, "cloud", identity=(authority, authority.issue("twin-cloud")))
    cloud.subscribe("twin/v1/+/status")
    with subprocess.Popen(
        [*AGENT, "run", "--config", str(device.config)], env=ENVIRONMENT, stdin=subprocess.PIPE
    ) as agent:
        eventually(lambda: [name for name, _ in cloud.received] == [f"twin/v1/{VEHICLE}/status"])
        agent.terminate()
    foreign = Authority(device.folder / "foreign")
    (tls(device) / "vehicle.crt").write_bytes(
        foreign.sign(tls(device) / "vehicle.csr").read_bytes()
    )
    refused = device.run("replay", str(device.table), "--wait-for-cloud", "1")
    assert refused.returncode == 5
