"""What deploy/aws/stack.yaml allows a vehicle, the service and a claim: the evaluator is our own.

INVARIANT 6: a vehicle can neither read nor write another vehicle's topics.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud.mqtt.filters import filters
from common.topics import DOWNWARD, UPWARD
from tests.iot_policies import Client, Policy, is_allowed, matches, template_policies

STACK = Path(__file__).resolve().parent.parent / "deploy" / "aws" / "stack.yaml"
RETAINED = {"parameters", "bundle", "keys"}


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    return template_policies(STACK)


# ---- the evaluator, by cases of AWS's documentation -------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("topic/a/*", "topic/a/b/c", True),
        ("topic/a/*/c", "topic/a/b/x/c", True),  # * is not confined to a level
        ("topic/some/?????/topic", "topic/some/three/topic", True),
        ("topic/some/?????/topic", "topic/some/four/topic", False),
        ("topicfilter/a/+/c", "topicfilter/a/+/c", True),
        ("topicfilter/a/+/c", "topicfilter/a/b/c", False),  # MQTT's wildcards are letters here
        ("topicfilter/a/#", "topicfilter/a/b", False),
        ("topic/${iot:ClientId}", "topic/car-1", True),
        ("topic/${iot:ClientId}", "topic/car-2", False),
        ("topic/${iot:Connection.Thing.ThingName}", "topic/", False),  # no thing, no value
        ("topic/${*}", "topic/*", True),
        ("topic/${*}", "topic/x", False),
    ],
)
def test_patterns_match_as_aws_says(pattern: str, text: str, *, expected: bool) -> None:
    assert matches(pattern, text, {"iot:ClientId": "car-1"}) is expected


def statement(effect: str, **changes: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "iot:Connect", "Resource": "*", **changes}


def test_a_denial_overrides_and_nothing_is_allowed_by_itself() -> None:
    allow, deny = statement("Allow"), statement("Deny", Resource="*client/client1")
    assert is_allowed({"Statement": [allow]}, "iot:Connect", "arn:client/client1", {})
    assert not is_allowed({"Statement": [allow, deny]}, "iot:Connect", "arn:client/client1", {})
    assert is_allowed({"Statement": [allow, deny]}, "iot:Connect", "arn:client/client2", {})
    assert not is_allowed({"Statement": [allow]}, "iot:Publish", "arn:topic/a", {})


def test_a_condition_asks_for_the_thing_s_certificate() -> None:
    attached = {"Bool": {"iot:Connection.Thing.IsAttached": ["true"]}}
    policy = {"Statement": [statement("Allow", Condition=attached)]}
    assert not is_allowed(policy, "iot:Connect", "arn:client/a", {})
    known = {"iot:Connection.Thing.IsAttached": "true"}
    assert is_allowed(policy, "iot:Connect", "arn:client/a", known)


# ---- a vehicle --------------------------------------------------------------------------------


@pytest.fixture
def car(policies: dict[str, Policy]) -> Client:
    return Client(policies["VehiclePolicy"], "car-1", thing="car-1")


def test_a_vehicle_does_what_the_contract_asks(car: Client) -> None:
    assert car.connects()
    assert all(car.publishes(f"twin/v1/car-1/{kind}") for kind in UPWARD)
    assert car.publishes("twin/v1/car-1/status", retained=True)
    for kind in DOWNWARD:
        assert car.subscribes(f"twin/v1/car-1/{kind}")
        assert car.receives(f"twin/v1/car-1/{kind}")


def test_a_vehicle_reaches_no_other_one(car: Client) -> None:
    for other in ("car-2", "car-11", "+", "#", "*"):
        for kind in (*UPWARD, *DOWNWARD):
            name = f"twin/v1/{other}/{kind}"
            assert not car.publishes(name)
            assert not car.publishes(name, retained=True)
            assert not car.subscribes(name)
            assert not car.receives(name)


@pytest.mark.parametrize(
    "name",
    [
        "#",
        "twin/#",
        "twin/v1/#",
        "twin/v1/car-1/#",
        "twin/v1/car-1/x/trip",
        "twin/v1/car-1/+",
        "twin/v1/+/parameters",
        "$share/twin-cloud/twin/v1/+/breach",
        "$share/x/twin/v1/car-1/parameters",
        "$aws/things/car-1/shadow/update",
        "$aws/rules/anything",
    ],
)
def test_a_vehicle_widens_no_filter(car: Client, name: str) -> None:
    assert not car.subscribes(name)
    assert not car.publishes(name)


def test_a_vehicle_writes_nothing_that_the_service_says(car: Client) -> None:
    assert not any(car.publishes(f"twin/v1/car-1/{kind}") for kind in DOWNWARD)


def test_a_vehicle_retains_its_status_alone(car: Client) -> None:
    kept = [kind for kind in UPWARD if car.publishes(f"twin/v1/car-1/{kind}", retained=True)]
    assert kept == ["status"]


@pytest.mark.parametrize("client_id", ["car-2", "car-11", "twin-cloud", "claim-1", "*"])
def test_a_vehicle_takes_no_other_s_name(policies: dict[str, Policy], client_id: str) -> None:
    assert not Client(policies["VehiclePolicy"], client_id, thing="car-1").connects()


def test_a_certificate_without_a_thing_gets_nowhere(policies: dict[str, Policy]) -> None:
    stray = Client(policies["VehiclePolicy"], "car-1")
    assert not stray.connects()
    assert not stray.publishes("twin/v1/car-1/trip")
    assert not stray.publishes("twin/v1//trip")
    assert not stray.subscribes("twin/v1/car-1/parameters")


# ---- the service ------------------------------------------------------------------------------


@pytest.fixture
def service(policies: dict[str, Policy]) -> Client:
    return Client(policies["ServicePolicy"], "twin-cloud-ingest-1")


@pytest.mark.parametrize("group", [None, "twin-cloud"])
def test_the_service_does_what_the_contract_asks(service: Client, group: str | None) -> None:
    assert service.connects()
    assert all(service.subscribes(name) for name in filters(group))
    assert all(service.receives(f"twin/v1/car-1/{kind}") for kind in UPWARD)
    for kind in DOWNWARD:
        assert service.publishes(f"twin/v1/car-1/{kind}")
        assert service.publishes(f"twin/v1/car-1/{kind}", retained=True) is (kind in RETAINED)


def test_the_service_speaks_for_no_vehicle(service: Client) -> None:
    assert not any(service.publishes(f"twin/v1/car-1/{kind}") for kind in UPWARD)
    assert not any(service.receives(f"twin/v1/car-1/{kind}") for kind in DOWNWARD)
    for name in ("#", "twin/#", "twin/v1/#", "$share/other/twin/v1/+/breach", "$aws/events/#"):
        assert not service.subscribes(name)
    assert not Client(service.policy, "car-1").connects()


def test_with_a_role_it_may_do_the_same_as_with_a_certificate(
    policies: dict[str, Policy],
) -> None:
    assert policies["ServiceManagedPolicy"] == policies["ServicePolicy"]


# ---- a claim ----------------------------------------------------------------------------------


def test_a_claim_asks_for_a_certificate_and_for_nothing_else(policies: dict[str, Policy]) -> None:
    claim = Client(policies["ClaimPolicy"], "claim-line-7")
    template = "$aws/provisioning-templates/twin-vehicle/provision/json"
    assert claim.connects()
    assert claim.publishes("$aws/certificates/create-from-csr/json")
    assert claim.publishes(template)
    assert claim.subscribes(f"{template}/accepted")
    assert claim.receives(f"{template}/rejected")
    assert not claim.publishes("$aws/certificates/create/json")  # a key that AWS made would travel
    assert not claim.publishes("$aws/provisioning-templates/other/provision/json")
    assert not claim.publishes("twin/v1/car-1/trip")
    assert not claim.subscribes("twin/v1/+/trip")
    assert not Client(claim.policy, "car-1").connects()


# ---- the template -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partition", "region"), [("aws", "ap-southeast-1"), ("aws-us-gov", "us-gov-west-1")]
)
def test_no_policy_is_longer_than_aws_takes(partition: str, region: str) -> None:
    found = template_policies(STACK, region, partition)
    found.pop("ServiceManagedPolicy")  # IAM's limit is 6,144
    longest = {name: len(json.dumps(one, separators=(",", ":"))) for name, one in found.items()}
    assert max(longest.values()) <= 2048, longest


def test_cfn_lint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "cfn-lint"
    done = subprocess.run([program, STACK], capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stdout) == (0, "")
