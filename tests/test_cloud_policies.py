"""Policies of cohorts: versions that stay, and what they make of the breaches that come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.policy import Policy
from cloud.store import policies, verification
from cloud.store.tables import Vehicle
from cloud.store.verification import Verified
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.conftest import ON_BOTH, chosen

V1 = "/api/v1"


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(request: pytest.FixtureRequest, tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path, chosen(request))
    yield made
    made.store.close()


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {}, inside.worker.wake)


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as made:
        yield made


def put(
    client: httpx.Client, policy: dict[str, Any], match: str | None = "*", cohort: str = "default"
) -> httpx.Response:
    told = {"policy": policy, "why": "a pilot fleet", "by": "desk"}
    headers = {"If-Match": match} if match else {}
    return client.put(f"{V1}/policies/{cohort}", json=told, headers=headers)


def rule(inside: Insides, **settings: Any) -> None:
    with inside.store.write() as db:
        policies.add(db, "default", Policy(**settings), actor="desk", why="test", now=NOW)


def decide(client: httpx.Client, word: str, number: int = 1) -> httpx.Response:
    told = {"why": "looks plausible", "by": "desk"}
    return client.post(f"{V1}/vehicles/car/revisions/{number}/{word}", json=told)


def kinds(client: httpx.Client) -> list[str]:
    return [one["kind"] for one in client.get(f"{V1}/audit").json()["items"]]


def test_a_cohort_without_a_policy_has_version_0(client: httpx.Client) -> None:
    found = client.get(f"{V1}/policies/winter").json()
    assert (found["version"], found["policy"]["calibration"]) == (0, "automatic")
    assert client.get(f"{V1}/policies").json()["items"] == []


def test_each_change_is_a_version_with_its_author_and_reason(client: httpx.Client) -> None:
    seen = client.get(f"{V1}/policies/default").headers["ETag"]
    problem(put(client, {}, match=None), 428)
    first = put(client, {"calibration": "approval"}, match=seen)
    assert (first.json()["version"], first.json()["changed_by"]) == (1, "desk")
    problem(put(client, {}, match=seen), 412)
    put(client, {"health_limit": 0.7}, match=first.headers["ETag"])
    versions = client.get(f"{V1}/policies/default/versions").json()["items"]
    assert [one["version"] for one in versions] == [2, 1]
    assert versions[1]["policy"]["calibration"] == "approval"
    event = client.get(f"{V1}/audit").json()["items"][0]
    assert event["kind"] == "policy.changed"
    assert event["detail"]["changed"] == {
        "calibration": {"from": "approval", "to": "automatic"},
        "health_limit": {"from": 0.8, "to": 0.7},
    }


def test_the_database_itself_refuses_to_change_a_version(inside: Insides) -> None:
    rule(inside, calibration="approval")
    for statement in ("UPDATE policy SET why = 'other'", "DELETE FROM policy"):
        with pytest.raises(IntegrityError), inside.store.write() as db:
            db.connection().execute(text(statement))


def test_only_who_sees_a_cohort_changes_its_policy(inside: Insides) -> None:
    with serving(context_of(inside), Actor("ann", "operator", frozenset({"mine"}))) as ann:
        assert put(ann, {}, cohort="mine").status_code == 200
        problem(put(ann, {}, cohort="theirs"), 403)
        problem(ann.get(f"{V1}/policies/theirs"), 404)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"calibrate_from_error_v": 0.06}, "below"), ({"refuse_above_error_v": 0.04}, "above")],
)
def test_a_breach_outside_the_policys_limits_brings_no_revision(
    inside: Insides, settings: dict[str, float], reason: str
) -> None:
    rule(inside, **settings)
    breach = inside.car().breach(5)
    inside.take(breach)
    inside.work()
    assert inside.rows() == []
    assert reason in inside.publisher.declined[breach.message_id]
    [vehicle] = inside.table(Vehicle)
    assert vehicle.failures == 0


@ON_BOTH
def test_under_approval_a_revision_is_made_and_waits(inside: Insides, client: httpx.Client) -> None:
    rule(inside, calibration="approval")
    inside.take(inside.car().breach(5))
    inside.work()
    inside.take(inside.car().status())  # it runs 0: nothing newer is for it yet
    inside.worker.reconnected()
    inside.work()
    assert (len(inside.rows()), inside.publisher.numbers) == (1, [])
    [waits] = client.get(f"{V1}/approvals").json()["items"]
    assert (waits["vehicle_id"], waits["revision"], waits["approval"]) == ("car", 1, "pending")

    tried = client.post(f"{V1}/vehicles/car/revisions/1/approve?dry_run=true", json={"why": "try"})
    assert tried.json()["approval"] == "approved"
    answer = decide(client, "approve")
    assert (answer.json()["approval"], answer.json()["decided_by"]) == ("approved", "desk")
    inside.take(inside.car().status())
    inside.work()
    assert inside.publisher.numbers == [1]
    assert client.get(f"{V1}/approvals").json()["items"] == []
    assert "approved" in problem(decide(client, "reject"), 409)["detail"]
    assert kinds(client)[0] == "revision.approved"


def test_an_approved_revision_is_pushed_by_a_worker_that_only_looks(
    inside: Insides, client: httpx.Client
) -> None:
    rule(inside, calibration="approval")
    inside.take(inside.car().breach(5))
    inside.work()
    decide(client, "approve")
    inside.start()
    inside.work()
    assert inside.publisher.numbers == [1]


def test_a_rejected_revision_stays_in_the_chain_and_is_never_pushed(
    inside: Insides, client: httpx.Client
) -> None:
    rule(inside, calibration="approval")
    breach = inside.car().breach(5)
    inside.take(breach)
    inside.work()
    assert decide(client, "reject").json()["approval"] == "rejected"
    inside.take(inside.car().status(awaiting=[breach.message_id]))
    inside.worker.reconnected()
    inside.work()
    assert inside.publisher.numbers == []
    assert "rejected_by_operator" in inside.publisher.declined[breach.message_id]
    [row] = inside.rows()
    assert (row.verdict, row.approval_why) == ("refused", "looks plausible")
    with inside.store.read() as db:
        [found] = verification.verify_all(db, verification.remembered_keys(db))
    assert found == Verified("car", 1, row.hash)


def test_what_needs_no_approval_cannot_be_approved(inside: Insides, client: httpx.Client) -> None:
    inside.take(inside.car().breach(5))
    inside.work()
    problem(decide(client, "approve"), 409)
    problem(decide(client, "approve", number=7), 404)


def test_a_vehicle_with_an_older_revision_is_not_told_of_one_that_waits(
    inside: Insides, client: httpx.Client
) -> None:
    """Otherwise it would take the newer one as held back."""
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.acknowledgement(inside.rows()[0], "applied"))
    rule(inside, calibration="approval")
    inside.take(car.breach(10, revision=1))
    inside.work()
    inside.take(car.status(revision=1, question="c" * 32))
    fresh = [sent.receipt.fresh for sent in inside.publisher.of_kind("receipt")][-1]
    assert fresh is not None
    assert '"revision":1' in str(fresh)
    inside.publisher.sent.clear()
    inside.take(car.status(revision=0))
    inside.work()
    assert inside.publisher.numbers == [1]
