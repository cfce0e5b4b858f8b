"""What only the database knows, for Prometheus: asked when somebody looks, and kept for a moment.

Must never fail a scrape: without the database these are missing, and that is what they say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cloud.errors import StoreUnavailableError
from cloud.observability.readiness import Readable
from cloud.store import backlog
from cloud.store.backlog import Pending

FRESH_S: Final = 5.0
PENDING: Final = "twin_pending_breaches"
OLDEST: Final = "twin_oldest_pending_breach_age_seconds"
REACHABLE: Final = "twin_database_reachable"


class BacklogMetrics(Collector):
    """Register it with a registry."""

    def __init__(self, store: Readable, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._known: Pending | None = None
        self._known_at = -FRESH_S

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Pending breaches and the age of the oldest; whether the database answers."""
        now = self._clock()
        with self._lock:
            if not 0.0 <= now - self._known_at < FRESH_S:
                self._known, self._known_at = self._look(), now
            known = self._known
        yield GaugeMetricFamily(
            REACHABLE, "1 while the database answers.", value=float(known is not None)
        )
        if known is not None:
            told = f"Breaches that wait for the worker; counted up to {backlog.AT_MOST}."
            yield GaugeMetricFamily(PENDING, told, value=known.breaches)
            age = 0.0 if known.oldest_at is None else max(now - known.oldest_at, 0.0)
            yield GaugeMetricFamily(OLDEST, "How long the oldest of them has waited.", value=age)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def _look(self) -> Pending | None:
        try:
            with self._store.read() as db:
                return backlog.pending(db)
        except StoreUnavailableError:
            return None
