"""A caller sees the vehicles of its own cohorts, on every route there is."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlmodel import select

from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.api.authority import Actor, Admin, Operator, Viewer
from cloud.intake.interpretation import Delivery
from cloud.store.tables import Vehicle
from tests.cloud_doubles import Insides, serving, write_bundle

PLACES = {"number": "1", "other": "1", "trip_id": "trip2", "name": "gain_distance"}
OPEN = {
    "/api/v1/docs",
    "/api/v1/problems/{status}",
    "/health/live",
    "/health/ready",
    "/healthz",
    "/readyz",
    "/metrics",
}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """`mine` in cohort north, `theirs` in south, each with a trip, a revision, a refusal."""
    folder: Path = tmp_path_factory.mktemp("cohorts")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    for name, cohort in (("mine", "north"), ("theirs", "south")):
        car = inside.car(name)
        inside.take(car.trip(1), car.status(), car.provisional(1), car.breach(2, odometer=2000.0))
        inside.work()
        inside.take(Delivery(f"twin/v1/{name}/trip", b"garbage", mid=1))
        with inside.store.write() as db:
            vehicle = db.exec(select(Vehicle).where(Vehicle.vehicle_id == name)).one()
            vehicle.cohort = cohort
            db.add(vehicle)
    inside.take(Delivery("elsewhere", b"garbage", mid=1))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    """Asked by somebody who may see cohort north."""
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    with serving(context, Actor("desk", "admin", frozenset({"north"}))) as client:
        yield client


def operations(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    return [(m, path, one) for path, methods in paths.items() for m, one in methods.items()]


def test_every_route_knows_its_caller() -> None:
    context: Any = None  # nothing is asked
    known = {typing.get_args(kind)[1].dependency for kind in (Viewer, Operator, Admin)}
    asked = 0
    for route in iter_route_contexts(create_app(context).routes):
        if isinstance(route.route, APIRoute) and route.path not in OPEN:
            assert any(one.call in known for one in route.dependant.dependencies), route.path
            asked += 1
    assert asked > 10


def test_a_vehicle_of_another_cohort_is_not_there_on_any_route(client: httpx.Client) -> None:
    asked = [
        (method, path, one) for method, path, one in operations(client) if "{vehicle_id}" in path
    ]
    assert len(asked) > 8
    for method, path, operation in asked:
        url = path.replace("{vehicle_id}", "theirs")
        for name, value in PLACES.items():
            url = url.replace(f"{{{name}}}", value)
        body = example_body(client, operation)
        response = client.request(method, url, json=body)
        assert response.status_code == 404, (method, path, response.text)
        assert "theirs" in response.json()["detail"]


def example_body(client: httpx.Client, operation: dict[str, Any]) -> object:
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rsplit("/", 1)[1]
    schemas = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    return schemas[name]["examples"][0]


def test_lists_leave_out_what_belongs_to_other_cohorts(client: httpx.Client) -> None:
    lists = [
        path
        for method, path, one in operations(client)
        if method == "get" and "{" not in path and path not in OPEN
        if "text/event-stream" not in one["responses"]["200"]["content"]  # it has no end
    ]
    assert "/api/v1/vehicles" in lists
    for path in lists:
        text = client.get(path).text
        assert "theirs" not in text, path
    assert [v["vehicle_id"] for v in client.get("/api/v1/vehicles").json()["items"]] == ["mine"]
    refused = client.get("/api/v1/quarantine").json()["items"]
    assert [item["topic"] for item in refused] == ["twin/v1/mine/trip"]
