"""What only the database knows, for Prometheus: asked when somebody looks, and kept for a moment.

Must never fail a scrape: without the database these are missing, and that is what they say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cloud.errors import StoreUnavailableError
from cloud.observability.readiness import Readable
from cloud.store import backlog
from cloud.store.backlog import AT_MOST, Deliveries, Jobs, Pending

FRESH_S: Final = 5.0


@dataclass(frozen=True)
class Backlog:
    """Everything that waits; `jobs` is None where there is no task queue."""

    pending: Pending
    deliveries: Deliveries
    jobs: Jobs | None


class BacklogMetrics(Collector):
    """Register it with a registry."""

    def __init__(self, store: Readable, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._known: Backlog | None = None
        self._known_at = -FRESH_S

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What waits, and whether the database answers."""
        now = self._clock()
        with self._lock:
            if not 0.0 <= now - self._known_at < FRESH_S:
                self._known, self._known_at = self._look(), now
            known = self._known
        yield from families(known, now)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def _look(self) -> Backlog | None:
        try:
            with self._store.read() as db:
                return Backlog(backlog.pending(db), backlog.deliveries(db), backlog.jobs(db))
        except StoreUnavailableError:
            return None


def families(known: Backlog | None, now: float) -> Iterator[GaugeMetricFamily]:
    """The gauges of what is known; None: the database does not answer."""
    yield _gauge("database_reachable", "1 while the database answers.", known is not None)
    if known is None:
        return
    told = f"Breaches that wait for the worker; counted up to {AT_MOST}."
    yield _gauge("pending_breaches", told, known.pending.breaches)
    told = "How long the oldest of them has waited."
    yield _gauge("oldest_pending_breach_age_seconds", told, _age(known.pending.oldest_at, now))
    yield from _of_deliveries(known.deliveries, now)
    if known.jobs is not None:
        yield from _of_jobs(known.jobs)


def _of_deliveries(found: Deliveries, now: float) -> Iterator[GaugeMetricFamily]:
    told = f"Deliveries to webhooks: not tried, failing, or given up and kept; up to {AT_MOST}."
    states = {
        "waiting": found.waiting - found.failing,
        "failing": found.failing,
        "given_up": found.given_up,
    }
    yield _by_state("webhook_deliveries", told, states)
    told = "How long the oldest delivery that is not given up has waited."
    yield _gauge("oldest_webhook_delivery_age_seconds", told, _age(found.oldest_at, now))


def _of_jobs(found: Jobs) -> Iterator[GaugeMetricFamily]:
    told = f"Jobs of the task queue by state, on PostgreSQL; counted up to {AT_MOST}."
    states = {"todo": found.todo, "doing": found.doing, "failed": found.failed}
    yield _by_state("jobs", told, states)
    told = "Jobs in hand of a worker that gives no sign of life; others take them over."
    yield _gauge("jobs_stalled", told, found.stalled)
    told = "How long the oldest job that is due has waited."
    yield _gauge("oldest_waiting_job_age_seconds", told, found.oldest_s)
    yield _gauge("workers", "Workers of the task queue that give signs of life.", found.workers)


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"twin_{name}", told, value=float(value))


def _by_state(name: str, told: str, states: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"twin_{name}", told, labels=["state"])
    for state, value in states.items():
        family.add_metric([state], value)
    return family


def _age(oldest_at: float | None, now: float) -> float:
    return 0.0 if oldest_at is None else max(now - oldest_at, 0.0)
