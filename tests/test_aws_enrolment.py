"""A vehicle in AWS's registry, by the official client against moto."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode
from cryptography import x509
from moto import mock_aws
from moto.iot.models import IoTBackend

from cloud.errors import AwsEnrolmentError
from cloud.security import aws_registry
from common.errors import TopicError
from edge_agent.enrolment import Identity, request_certificate
from tests.certificates import Authority
from tests.support_command_line import twin_cloud

Run = Callable[..., tuple[int, str, str]]
SMOKE = Path(__file__).resolve().parent.parent / "deploy" / "aws" / "smoke.sh"


@pytest.fixture
def faithful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """moto would certify a key that it makes up; AWS certifies the key of the request."""
    authority = Authority(tmp_path / "aws")

    def signed(self: IoTBackend, csr: str, set_as_active: bool) -> Any:  # noqa: FBT001
        asked = tmp_path / "aws" / "asked.csr"
        asked.write_text(csr)
        pem = authority.sign(asked).read_text()
        return self.register_certificate(pem, None, set_as_active, "INACTIVE")

    monkeypatch.setattr(IoTBackend, "create_certificate_from_csr", signed)


@pytest.fixture(autouse=True)
def iot(monkeypatch: pytest.MonkeyPatch, faithful: None) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        client = boto3.client("iot")
        for name in ("twin-vehicle", "twin-service"):
            client.create_policy(policyName=name, policyDocument='{"Statement": []}')
        yield client


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *words: twin_cloud(monkeypatch, capsys, "aws", *words)


def requested(folder: Path, name: str = "car-1") -> bytes:
    """What the vehicle's own program writes; its key stays in the folder."""
    folder.mkdir(exist_ok=True)
    identity = Identity(folder / name)
    request_certificate(identity, name)
    return identity.request.read_bytes()


def enroll(iot: Any, pem: bytes, name: str = "car-1") -> aws_registry.Enrolled:
    return aws_registry.enroll_vehicle(iot, name, pem, "twin-vehicle", "twin-cloud")


def principals(iot: Any, name: str = "car-1") -> list[str]:
    found: list[str] = iot.list_thing_principals(thingName=name)["principals"]
    return found


def status(iot: Any, certificate_id: str) -> str:
    described = iot.describe_certificate(certificateId=certificate_id)
    return str(described["certificateDescription"]["status"])


def test_a_vehicle_gets_a_certificate_for_its_own_key(iot: Any, tmp_path: Path) -> None:
    pem = requested(tmp_path)
    done = enroll(iot, pem)
    certificate = x509.load_pem_x509_certificate(done.certificate_pem.encode())
    assert certificate.public_key() == x509.load_pem_x509_csr(pem).public_key()
    (principal,) = principals(iot)
    attached = iot.list_attached_policies(target=principal)["policies"]
    assert [one["policyName"] for one in attached] == ["twin-vehicle"]
    assert (done.is_new, done.other_active) == (True, [])
    assert status(iot, done.certificate_id) == "ACTIVE"
    assert done.endpoint.endswith("-ats.iot.eu-central-1.amazonaws.com")


def test_enrolled_again_it_keeps_its_certificate(iot: Any, tmp_path: Path) -> None:
    pem = requested(tmp_path)
    first, again = enroll(iot, pem), enroll(iot, pem)
    assert (again.is_new, again.certificate_id) == (False, first.certificate_id)
    assert len(principals(iot)) == 1


class _CutOffError(Exception):
    pass


@pytest.mark.parametrize("call", ["attach_policy", "attach_thing_principal", "describe_endpoint"])
def test_an_enrolment_that_was_cut_off_is_completed(
    iot: Any, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(**_: Any) -> None:
        raise _CutOffError

    pem = requested(tmp_path)
    with monkeypatch.context() as cutting:
        cutting.setattr(iot, call, cut)
        with pytest.raises(_CutOffError):
            enroll(iot, pem)
    done = enroll(iot, pem)
    assert any(done.certificate_id in principal for principal in principals(iot))
    (policy,) = iot.list_attached_policies(target=principals(iot)[-1])["policies"]
    assert policy["policyName"] == "twin-vehicle"


def test_a_new_key_gets_a_new_certificate_and_the_old_one_is_named(
    iot: Any, tmp_path: Path
) -> None:
    old = enroll(iot, requested(tmp_path / "old"))
    new = enroll(iot, requested(tmp_path / "new"))
    assert (new.is_new, new.other_active) == (True, [old.certificate_id])
    assert aws_registry.offboard(iot, "car-1", keep=new.certificate_id) == [old.certificate_id]
    assert [status(iot, one.certificate_id) for one in (old, new)] == ["INACTIVE", "ACTIVE"]


def test_who_is_put_out_has_no_active_certificate_and_may_come_back(
    iot: Any, tmp_path: Path
) -> None:
    pem = requested(tmp_path)
    done = enroll(iot, pem)
    assert aws_registry.offboard(iot, "car-1") == [done.certificate_id]
    assert aws_registry.offboard(iot, "car-1") == []
    assert status(iot, done.certificate_id) == "INACTIVE"
    back = enroll(iot, pem)
    assert (back.is_new, back.certificate_id != done.certificate_id) == (True, True)


def test_another_s_request_is_refused_before_anything_is_made(iot: Any, tmp_path: Path) -> None:
    pem = requested(tmp_path, "car-2")
    with pytest.raises(AwsEnrolmentError, match="the request is of car-2"):
        enroll(iot, pem)
    with pytest.raises(AwsEnrolmentError, match="no certificate request"):
        enroll(iot, b"nonsense")
    assert iot.list_things()["things"] == []


@pytest.mark.parametrize("name", ["twin-cloud", "twin-cloud-2", "claim-1"])
def test_no_vehicle_takes_the_service_s_name_or_a_claim_s(
    iot: Any, tmp_path: Path, name: str
) -> None:
    with pytest.raises(AwsEnrolmentError, match="are no vehicle's"):
        enroll(iot, requested(tmp_path, name), name)
    with pytest.raises(AwsEnrolmentError, match="are no vehicle's"):
        aws_registry.expect(iot, name, "twin-cloud")


def test_a_name_that_could_widen_a_topic_is_refused(iot: Any) -> None:
    with pytest.raises(TopicError):
        aws_registry.expect(iot, "car/1", "twin-cloud")


def test_an_expected_vehicle_is_a_thing_without_a_certificate(iot: Any) -> None:
    assert aws_registry.expect(iot, "car-3", "twin-cloud")
    assert not aws_registry.expect(iot, "car-3", "twin-cloud")
    assert principals(iot, "car-3") == []


def test_a_claim_gets_a_certificate_for_an_expected_vehicle_once(iot: Any, tmp_path: Path) -> None:
    template, _ = decode(str(SMOKE.with_name("stack.yaml")))
    assert template is not None
    hook: dict[str, Any] = {}
    code = template["Resources"]["ExpectedOnly"]["Properties"]["Code"]["ZipFile"]
    exec(code, hook)  # as the account would run it

    def lets_through(**parameters: str) -> bool:
        return bool(hook["handler"]({"parameters": parameters}, None)["allowProvisioning"])

    aws_registry.expect(iot, "car-1", "twin-cloud")
    assert lets_through(VehicleId="car-1")
    enroll(iot, requested(tmp_path))
    assert not lets_through(VehicleId="car-1")
    assert not lets_through(VehicleId="car-2")
    assert not lets_through()


# ---- the command line -------------------------------------------------------------------------


def test_the_commands_print_data_on_stdout_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "car.csr").write_bytes(requested(tmp_path))
    out = tmp_path / "car.crt"
    arguments = ("enroll", "car-1", "--request", tmp_path / "car.csr", "--out", out)
    code, stdout, stderr = run(*arguments, "--json")
    told = json.loads(stdout)
    assert (code, told["name"], told["is_new"]) == (0, "car-1", True)
    assert out.read_text() == told["certificate_pem"]
    code, stdout, stderr = run(*arguments)
    assert (code, stdout.strip().endswith(".amazonaws.com")) == (0, True)
    assert "[mqtt] host" in stderr
    assert run("offboard", "car-1")[:2] == (0, f"{told['certificate_id']}\n")
    assert run("expect", "car-9")[:2] == (0, "")


def test_the_service_is_enrolled_with_its_own_policy(iot: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.csr").write_bytes(requested(tmp_path, "twin-cloud"))
    arguments = ("twin-cloud", "--request", tmp_path / "s.csr", "--out", tmp_path / "s.crt")
    assert run("enroll-service", *arguments)[0] == 0
    (principal,) = principals(iot, "twin-cloud")
    (policy,) = iot.list_attached_policies(target=principal)["policies"]
    assert policy["policyName"] == "twin-service"


def test_what_goes_wrong_is_one_sentence_and_an_exit_code(run: Run, tmp_path: Path) -> None:
    (tmp_path / "car.csr").write_bytes(requested(tmp_path))
    arguments = ("--request", tmp_path / "car.csr", "--out", tmp_path / "car.crt")
    assert run("enroll", "car-2", *arguments)[0] == 4
    assert run("enroll", "car/2", *arguments)[0] == 4
    assert run("enroll", "car-1", "--request", tmp_path / "no", "--out", tmp_path / "x")[0] == 3
    assert run("offboard", "nobody")[0] == 3
    code, stdout, stderr = run("enroll", "car-1", *arguments, "--name", "other")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("twin-cloud: AWS refuses:")


# ---- the proof on a real account --------------------------------------------------------------


def test_a_dry_run_of_the_proof_says_every_step_and_touches_nothing(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, SMOKE, "--dry-run"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    steps = [
        "cloudformation deploy",
        "aws enroll-service",
        "aws enroll V001",
        "twin-cloud serve",
        "edge-agent replay",
        "twin-cloud verify",
        "PROVED",
        "aws offboard V001",
        "delete-stack",
    ]
    places = [said.index(step) for step in steps]
    assert len(places) == len(steps)
    assert not Path("/tmp/twin-smoke").exists()


def test_the_proof_takes_no_other_word() -> None:
    done = subprocess.run([SMOKE, "--force"], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
