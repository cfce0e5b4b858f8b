"""What an operator orders in a process with the API alone is carried out by a worker in another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import text

from cloud.api.access import Context
from cloud.calibration.revising import Author
from cloud.calibration.rounds import Calibrations
from cloud.jobs.upkeep import Upkeep
from cloud.location import PostgresUrl
from cloud.policy import Policy
from cloud.push.courier import Courier
from cloud.push.releases import Releases
from cloud.roles import process
from cloud.store import policies
from cloud.store.job_queue import JobQueue
from cloud.store.lanes import lane_of
from tests.cloud_doubles import NOW, Insides, serving, write_bundle

V1 = "/api/v1"


@pytest.fixture
def inside(tmp_path: Path, postgres_database: PostgresUrl) -> Iterator[Insides]:
    """The car has two revisions; nothing of it waits."""
    made = Insides(tmp_path, write_bundle(tmp_path / "bundle"), postgres_database)
    made.take(made.car().status(), made.car().trip(1))
    for trip in (2, 3):
        made.take(made.car().breach(trip))
        made.work()
    yield made
    made.store.close()


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    """As `twin-cloud api` puts it together."""
    parts: Any = cast("Any", SimpleNamespace(store=inside.store))
    wake = process._look(parts)
    with serving(Context(inside.store, inside.catalogue, lambda: NOW, {}, wake)) as made:
        yield made


def jobs(inside: Insides) -> set[str]:
    """The names of the jobs that wait; they are taken."""
    with inside.store.write() as db:
        taken = text("DELETE FROM procrastinate_jobs WHERE status = 'todo' RETURNING queueing_lock")
        return set(db.connection().scalars(taken))


def look(inside: Insides) -> list[int]:
    """A worker does the job `look`; the numbers of the revisions that it publishes."""
    clock = lambda: inside.now  # noqa: E731
    author = Author(inside.key, "0.1.0")
    common = (inside.store, inside.publisher, clock, author)
    courier = Courier(*common, lambda: None)
    releases = Releases(inside.store, inside.catalogue, author, inside.publisher, clock)
    queue = JobQueue(inside.store)
    inside.publisher.sent.clear()
    Upkeep(inside.store, inside.catalogue, queue, courier, releases, clock).look()
    courier.turn()
    return inside.publisher.numbers


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ("battery-replaced", {"odometer": 9000.0}),
        ("roll-back", {"to": 1}),
        ("recalibrate", {"from": 1}),
        ("pin", {"to": 1}),
    ],
)
def test_an_order_leaves_a_job_of_its_lane(
    inside: Insides, client: httpx.Client, order: str, told: dict[str, Any]
) -> None:
    answer = client.post(f"{V1}/vehicles/car/{order}", json={**told, "why": "a look"})
    assert (answer.status_code, jobs(inside)) == (202, {"look"})
    look(inside)
    assert jobs(inside) == {f"orders-{lane_of('car')}"}


def test_what_is_approved_is_published_by_the_worker_that_looks(
    inside: Insides, client: httpx.Client
) -> None:
    with inside.store.write() as db:
        approval = Policy(calibration="approval")
        policies.add(db, "default", approval, actor="desk", why="pilot", now=NOW)
    inside.take(inside.car().breach(5))
    inside.work()
    assert look(inside) == []
    jobs(inside)
    path = f"{V1}/vehicles/car/revisions/3/approve"
    assert client.post(path, json={"why": "plausible"}).status_code == 200
    assert jobs(inside) == {"look"}
    inside.now += 60.0
    assert look(inside) == [3]


def test_a_decline_of_which_nobody_was_told_is_told_by_the_look(inside: Insides) -> None:
    """The worker ended between its commit and the broker's word."""
    late = inside.car().breach(1)
    inside.take(late)
    author = Author(inside.key, "0.1.0")
    Calibrations(inside.store, inside.catalogue, author, lambda: inside.now).round()
    look(inside)
    assert late.message_id not in inside.publisher.declined
    inside.now += 60.0
    look(inside)
    assert "newer revision" in inside.publisher.declined[late.message_id]
