"""What nobody is woken for: whatever waits in the tables for longer than it should.

A process may end between a commit and the job that belongs to it. Runs in any worker, every few
seconds; twice at once does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from cloud.bundles import Catalogue
from cloud.calibration.battery_starts import SETTLED_S
from cloud.push.courier import Courier
from cloud.push.releases import Releases
from cloud.rollout.conductor import Rollouts
from cloud.store import job_queue, pending_breaches, revisions, waiting
from cloud.store.database import Store
from cloud.store.job_queue import JobQueue

log = logging.getLogger(__name__)

FORGOTTEN_S: Final = 2.0
"""A breach that has waited for so long may have no job."""
UNPUBLISHED_S: Final = 10.0
UNHEARD_AT_ONCE: Final = 256
NEWCOMER_S: Final = 60.0
"""For so long a vehicle is new; those of which nothing could be said are asked about rarely."""
RARELY_S: Final = 300.0
ROLLOUT_TURNS: Final = 20
"""A roll-out over a large fleet goes on with the next look."""


class Upkeep:
    """Looks at the tables of one store; one thread at a time."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        queue: JobQueue,
        courier: Courier,
        releases: Releases,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._catalogue, self._queue = store, catalogue, queue
        self._courier, self._releases, self._clock = courier, releases, clock
        self._rollouts = Rollouts(store, catalogue, clock)
        self._all_newcomers_at = 0.0

    def look(self) -> None:
        """Make jobs of what waits. Raises StoreUnavailableError."""
        now = self._clock()
        with self._store.read() as db:
            pending = pending_breaches.pending_lanes(db, self._catalogue.hashes, now - FORGOTTEN_S)
            ordered = waiting.lanes_with_orders(db)
            newcomers = waiting.lanes_with_newcomers(db, self._new_since(now), now - SETTLED_S)
            unpublished = revisions.unpublished(db, now - UNPUBLISHED_S)
            unheard = revisions.unheard(db, 0, UNHEARD_AT_ONCE, now - UNPUBLISHED_S)
        jobs = [job_queue.calibrate(lane) for lane in pending]
        jobs += [job_queue.orders(lane) for lane in sorted(ordered | newcomers)]
        self._queue.defer(jobs)
        if unpublished:
            self._courier.republish({row.vehicle_id for row in unpublished})
        self._courier.announcer.declined(unheard)
        for _ in range(ROLLOUT_TURNS):
            if not self._rollouts.turn():
                break
        while self._releases.turn():
            pass

    def _new_since(self, now: float) -> float:
        if now - self._all_newcomers_at < RARELY_S:
            return now - NEWCOMER_S
        self._all_newcomers_at = now
        return 0.0
