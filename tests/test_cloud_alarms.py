"""Alarms: one for each vehicle and type, raised and cleared by the service, known to operators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.alerts.conditions import Facts, causes
from cloud.alerts.sweep import EVERY_S, AlarmSweep
from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.policy import Policy
from cloud.store import event_pages, policies
from cloud.store.tables import Vehicle
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.conftest import ON_BOTH, chosen

V1 = "/api/v1"
DAY_S = 86400.0
WELL = Facts("car", "default", 0.95, 0.01, 0, NOW, "known")


@pytest.mark.parametrize(
    ("changes", "active", "found"),
    [
        ({}, (), []),
        ({"soh": None, "last_seen_at": None}, (), []),
        ({"soh": 0.79, "soh_std": 0.02}, (), [("health", "major")]),
        ({"soh": 0.70, "soh_std": 0.02}, (), [("health", "critical")]),
        ({"soh": 0.805}, (), []),
        ({"soh": 0.805}, ("health",), [("health", "major")]),
        ({"failures": 2}, (), []),
        ({"failures": 3}, (), [("no_revision", "major")]),
        ({"refused": "worse_on_trace"}, (), [("revision_refused", "minor")]),
        ({"last_seen_at": NOW - 31 * DAY_S}, (), [("stale", "warning")]),
        ({"estimate_state": "doubtful"}, (), [("doubtful", "minor")]),
    ],
)
def test_a_cause_is_judged_by_the_policys_limits(
    changes: dict[str, Any], active: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    facts = Facts(**{**WELL.__dict__, **changes})
    judged = causes(facts, Policy(), active, NOW)
    assert [(one.type, one.severity) for one in judged] == found


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(request: pytest.FixtureRequest, tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path, chosen(request))
    made.take(*(made.car(name).status() for name in ("car", "van")))
    yield made
    made.store.close()


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, {})) as made:
        yield made


def become(inside: Insides, vehicle_id: str, **changes: Any) -> None:
    with inside.store.write() as db:
        vehicle = db.get(Vehicle, vehicle_id)
        for name, value in changes.items():
            setattr(vehicle, name, value)


def sweep(inside: Insides) -> None:
    inside.now += EVERY_S
    AlarmSweep(inside.store).turn(inside.now)


def listed(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"{V1}/alarms", params=asked).json()["items"]
    return items


def told(inside: Insides) -> list[str]:
    with inside.store.read() as db:
        rows = event_pages.after(db, 0, 1000)
    return [row.kind for row in rows if row.kind.startswith("alarm.")]


def test_an_alarm_goes_through_its_four_states(inside: Insides, client: httpx.Client) -> None:
    become(inside, "car", soh=0.5, soh_std=0.01)
    sweep(inside)
    sweep(inside)
    [raised] = listed(client, state="active", acknowledged="false")
    assert (raised["vehicle_id"], raised["type"], raised["severity"], raised["times"]) == (
        "car", "health", "critical", 1,
    )  # fmt: skip
    body = {"why": "pack is ordered", "assignee": "workshop", "by": "desk"}
    answer = client.post(f"{V1}/alarms/{raised['id']}/acknowledge", json=body).json()
    assert (answer["state"], answer["acknowledged"]) == ("active", True)
    assert (answer["acknowledged_by"], answer["assignee"]) == ("desk", "workshop")
    become(inside, "car", soh=0.95)
    sweep(inside)
    [cleared] = listed(client, state="cleared", acknowledged="true")
    assert cleared["comment"] == "pack is ordered"
    become(inside, "car", soh=0.5)
    sweep(inside)
    [again] = listed(client)
    assert (again["id"], again["times"], again["acknowledged"]) == (raised["id"], 2, False)
    assert told(inside) == [
        "alarm.raised", "alarm.acknowledged", "alarm.cleared", "alarm.raised",
    ]  # fmt: skip


def test_a_refused_revision_raises_an_alarm_until_a_newer_one_runs(
    inside: Insides, client: httpx.Client
) -> None:
    car = inside.car()
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.acknowledgement(inside.rows()[0], "refused"))
    sweep(inside)
    [alarm] = listed(client, type="revision_refused")
    assert "worse_on_trace" in alarm["reason"]
    inside.take(car.breach(10))
    inside.work()
    sweep(inside)
    assert listed(client, type="revision_refused", state="active") == []


def test_limits_are_the_cohorts_own(inside: Insides, client: httpx.Client) -> None:
    become(inside, "van", cohort="old")
    for name in ("car", "van"):
        become(inside, name, soh=0.75, soh_std=0.01)
    with inside.store.write() as db:
        policies.add(db, "old", Policy(health_limit=0.6), actor="desk", why="old", now=NOW)
    sweep(inside)
    assert [one["vehicle_id"] for one in listed(client)] == ["car"]


def test_who_sees_some_cohorts_knows_of_no_other_alarm(inside: Insides) -> None:
    become(inside, "van", cohort="mine")
    for name in ("car", "van"):
        become(inside, name, estimate_state="doubtful")
    sweep(inside)
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    with serving(context, Actor("ann", "operator", frozenset({"mine"}))) as ann:
        [mine] = listed(ann)
        assert mine["vehicle_id"] == "van"
        theirs = 3 - mine["id"]
        problem(ann.post(f"{V1}/alarms/{theirs}/acknowledge", json={"why": "?"}), 404)


@ON_BOTH
def test_what_was_raised_last_comes_first_over_pages(inside: Insides, client: httpx.Client) -> None:
    become(inside, "car", estimate_state="doubtful")
    sweep(inside)
    become(inside, "van", estimate_state="doubtful")
    sweep(inside)
    for state in ("known", "doubtful"):
        become(inside, "car", estimate_state=state)
        sweep(inside)
    first = client.get(f"{V1}/alarms", params={"limit": 1}).json()
    [second] = listed(client, limit=1, cursor=first["next"])
    assert [one["vehicle_id"] for one in (*first["items"], second)] == ["car", "van"]


@ON_BOTH
def test_two_processes_raise_an_alarm_once(inside: Insides) -> None:
    become(inside, "car", estimate_state="doubtful")
    first, second = AlarmSweep(inside.store), AlarmSweep(inside.store)
    for one in (first, second, first):
        one.turn(inside.now)
    assert told(inside) == ["alarm.raised"]
