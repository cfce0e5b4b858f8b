"""The API under schemathesis, within a small budget; `python -m bench.api_fuzz` asks much more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from bench.api_fuzz import Known, fuzz, operations
from cloud.api.access import Context
from cloud.api.gate import Entrance
from cloud.security import api_keys
from cloud.security.doors import Doors, KeyDoor
from cloud.security.settings import Limits
from tests.cloud_doubles import NOW, Insides, serving, write_bundle

UNBOUNDED = Limits(1e6, 10**6, 1e6, 10**6, 10**6)
EXAMPLES = 4
PLACES: Known = {"vehicle_id": "a", "trip_id": "trip1", "number": 1, "other": 1}
KNOWN = {**PLACES, "name": "gain_distance"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and an admin's key of a service that knows one vehicle well."""
    folder = tmp_path_factory.mktemp("fuzz")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    inside.take(a.trip(1), a.status(), a.breach(1))
    inside.work()
    row, key = api_keys.make("fuzz", "admin", None, None, "test", NOW, secrets.token_bytes)
    with inside.store.write() as db:
        db.add(row)
    doors = Doors(KeyDoor(inside.store, lambda: NOW), None, lambda: NOW)
    entrance = Entrance(doors, UNBOUNDED)
    context = Context(inside.store, inside.catalogue, lambda: NOW, {}, entrance=entrance)
    with serving(context) as client:
        yield str(client.base_url), key
    inside.store.close()


def test_nothing_fails_or_is_answered_that_is_not_described(service: tuple[str, str]) -> None:
    url, key = service
    found = fuzz(url, key, EXAMPLES, KNOWN)
    assert found.failures == []
    assert found.asked > found.operations > 30


def test_nothing_is_readable_without_a_key(service: tuple[str, str]) -> None:
    url, _ = service
    found = fuzz(url, None, 1)
    assert found.failures == []
    assert found.operations == len(list(operations(url)))
