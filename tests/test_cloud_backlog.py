"""What waits, as metrics and `twin-cloud doctor` tell it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from cloud.commands.doctor import LONGEST_DELIVERY_S, doctor
from cloud.location import PostgresUrl
from cloud.observability.backlog_metrics import BacklogMetrics
from cloud.observability.metrics import Metrics
from cloud.store import backlog, job_queue
from cloud.store.alert_tables import Delivery
from cloud.store.database import Store
from cloud.store.job_queue import JobQueue
from tests.cloud_doubles import NOW, Insides, write_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def insides(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)
    yield inside
    inside.store.close()


@pytest.fixture
def registry(insides: Insides) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(BacklogMetrics(insides.store, lambda: insides.now))
    return found


def delivery(event: int, state: str = "pending", attempts: int = 0) -> Delivery:
    return Delivery(
        webhook_id=1, event_id=event, kind="x", body=b"", made_at=NOW + event,
        state=state, attempts=attempts,
    )  # fmt: skip


def diagnosed(insides: Insides, capsys: Capture, now: float) -> tuple[bool, dict[str, Any]]:
    is_well = doctor(insides.store.location, None, now, as_json=True)
    return is_well, {one["what"]: one for one in json.loads(capsys.readouterr().out)}


def run(store: Store, statement: str) -> None:
    with store.write() as db:
        db.connection().execute(text(statement))


def test_breaches_and_deliveries_that_wait_are_counted(
    insides: Insides, registry: CollectorRegistry, capsys: Capture
) -> None:
    insides.take(insides.car("a").breach(1), insides.car("b").breach(1))
    with insides.store.write() as db:
        db.add_all([delivery(1, attempts=3), delivery(2), delivery(3), delivery(4, "delivered")])
        db.add_all([delivery(0, "given_up", 20), delivery(9, "given_up", 20)])
    insides.now += 31.0
    value = registry.get_sample_value
    assert value("twin_database_reachable") == 1
    assert value("twin_pending_breaches") == 2
    assert value("twin_oldest_pending_breach_age_seconds") == pytest.approx(31.0)
    counted = {
        state: value("twin_webhook_deliveries", {"state": state})
        for state in ("waiting", "failing", "given_up")
    }
    assert counted == {"waiting": 2, "failing": 1, "given_up": 2}
    assert value("twin_oldest_webhook_delivery_age_seconds") == pytest.approx(30.0)
    _, found = diagnosed(insides, capsys, NOW + 30.0)
    assert found["pending breaches"]["value"] == 2
    assert (found["lag"]["value"], found["lag"]["ok"]) == (30.0, True)
    assert found["webhook deliveries waiting"]["value"] == 3
    assert found["webhook deliveries given up"]["value"] == 2
    assert found["oldest webhook delivery"]["ok"]
    _, found = diagnosed(insides, capsys, NOW + LONGEST_DELIVERY_S + 2.0)
    assert "receiver" in found["oldest webhook delivery"]["problem"]


def test_rates_and_latencies_are_the_same_on_both(insides: Insides, capsys: Capture) -> None:
    car = insides.car()
    insides.take(car.breach(1), car.status(outbox_depth=4), *(car.trip(n) for n in range(30)))
    insides.now += 0.25
    insides.work()
    _, found = diagnosed(insides, capsys, NOW + 10.0)
    assert found["pending breaches"]["value"] == 0
    assert found["trips ingested"]["value"] == 0.5
    assert found["breach to push, p99"]["value"] == 0.25
    assert found["messages in outboxes"]["value"] == 4
    assert {name for name, one in found.items() if not one["ok"]} <= {"workers"}


def test_connections_are_counted_by_what_they_do(insides: Insides) -> None:
    metrics = Metrics()
    metrics.watch_pool(insides.store.connections())

    def counted(state: str) -> float | None:
        return metrics.registry.get_sample_value("twin_database_connections", {"state": state})

    assert counted("busy") == 0
    with insides.store.read() as db:
        db.connection()
        assert counted("busy") == 1
    assert counted("busy") == 0
    assert (counted("idle") or 0) >= 1


def test_without_a_task_queue_nothing_is_said_of_jobs(tmp_path: Path, capsys: Capture) -> None:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    registry = CollectorRegistry()
    registry.register(BacklogMetrics(inside.store, lambda: inside.now))
    assert registry.get_sample_value("twin_workers") is None
    assert registry.get_sample_value("twin_jobs", {"state": "todo"}) is None
    is_well, found = diagnosed(inside, capsys, NOW)
    assert is_well
    assert "workers" not in found
    inside.store.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_task_queue_tells_what_waits_and_who_works(
    insides: Insides, registry: CollectorRegistry, capsys: Capture
) -> None:
    store = insides.store
    is_well, found = diagnosed(insides, capsys, NOW)
    assert not is_well
    assert "twin-cloud worker" in found["workers"]["problem"]
    JobQueue(store).defer([job_queue.calibrate(lane) for lane in range(4)])
    JobQueue(store).defer([job_queue.REPUBLISH])  # in two seconds
    late = "scheduled_at = now() - interval '90 seconds'"
    run(store, f"UPDATE procrastinate_jobs SET {late} WHERE queueing_lock = 'calibrate-0'")
    for age, lane in ((1, 1), (30, 2)):
        heartbeat = f"now() - interval '{age} seconds'"
        run(store, f"INSERT INTO procrastinate_workers (last_heartbeat) VALUES ({heartbeat})")
        taken = "status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)"
        run(store, f"UPDATE procrastinate_jobs SET {taken} WHERE queueing_lock='calibrate-{lane}'")
    value = registry.get_sample_value
    counted = {state: value("twin_jobs", {"state": state}) for state in ("todo", "doing", "failed")}
    assert counted == {"todo": 3, "doing": 2, "failed": 0}
    assert value("twin_jobs_stalled") == 1
    assert value("twin_workers") == 1
    waited = value("twin_oldest_waiting_job_age_seconds")
    assert waited is not None
    assert 90.0 <= waited < 90.0 + 600.0
    _, found = diagnosed(insides, capsys, NOW)
    assert (found["workers"]["value"], found["workers"]["ok"]) == (1, True)
    assert (found["jobs waiting"]["value"], found["jobs in hand"]["value"]) == (3, 2)
    assert "Add workers" in found["oldest job"]["problem"]
    assert "no other" in found["jobs stalled"]["problem"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_job_without_a_date_waits_since_it_was_left(insides: Insides) -> None:
    store = insides.store
    JobQueue(store).defer([job_queue.LOOK])
    run(store, "UPDATE procrastinate_jobs SET scheduled_at = NULL")
    run(store, "UPDATE procrastinate_events SET at = now() - interval '70 seconds'")
    with store.read() as db:
        found = backlog.jobs(db)
    assert found is not None
    assert 70.0 <= found.oldest_s < 70.0 + 600.0
