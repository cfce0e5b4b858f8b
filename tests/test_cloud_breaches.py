"""What became of each breach of a vehicle, through the API, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.location import PostgresUrl
from tests.cloud_doubles import Insides, problem, serving, write_bundle

BREACHES = "/api/v1/vehicles/a/breaches"


@pytest.fixture
def inside(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """`a` has a breach that brought a revision, one that came too late, and one that waits."""
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)
    a = inside.car("a")
    inside.take(a.breach(4))
    inside.work()
    inside.take(a.breach(2))
    inside.work()
    inside.take(a.breach(6), inside.car("b").breach(1))
    yield inside
    inside.store.close()


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, {})) as client:
        yield client


def items(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asked = {"limit": 1, **params}
    while True:
        page = client.get(BREACHES, params=asked).json()
        found += page["items"]
        if page["next"] is None:
            return found
        asked["cursor"] = page["next"]


def test_each_breach_says_what_became_of_it(client: httpx.Client) -> None:
    found = items(client)
    assert [(one["trip_id"], one["state"], one["brought"]) for one in found] == [
        ("trip6", "pending", None),
        ("trip4", "calibrated", 1),
        ("trip2", "declined", None),
    ]
    assert found[2]["reason"]
    assert found[0]["decided_at"] is None
    assert all(one["odometer_unit"] == "km" and one["message_id"] for one in found)


@pytest.mark.parametrize("state", ["pending", "calibrated", "declined"])
def test_the_list_is_filtered_by_state(client: httpx.Client, state: str) -> None:
    assert [one["state"] for one in items(client, state=state)] == [state]


def test_no_trace_is_read_for_it(inside: Insides, client: httpx.Client) -> None:
    asked: list[str] = []
    engine = inside.store._reader
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    items(client)
    assert not any("breach.trace" in statement for statement in asked)
    assert asked


def test_a_vehicle_of_another_cohort_is_not_there(inside: Insides) -> None:
    ann = Actor("ann", "viewer", frozenset({"north"}))
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, {}), ann) as client:
        problem(client.get(BREACHES), 404)
