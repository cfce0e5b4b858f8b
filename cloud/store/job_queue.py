"""Put jobs where workers find them: procrastinate's tables in the service's own PostgreSQL.

At most one job of a name waits; whoever wants it again while it waits has what they want. Must be
called after what the job shall see is committed: the waiting one may be taken at any moment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cloud.store.database import Store

QUEUE: Final = "twin"
ATTEMPTS: Final = 5
# Jobs are wake-ups: what a crash of the database's machine loses of them, the next look makes.
_DEFER: Final = text(
    """
    SELECT set_config('synchronous_commit', 'off', true), procrastinate_defer_jobs_v1(array_agg(
        ROW(:queue, task, 0, lock, name, args::jsonb, now() + delay_s * interval '1 second')
        ::procrastinate_job_to_defer_v1))
    FROM unnest(
        CAST(:tasks AS text[]), CAST(:locks AS text[]), CAST(:names AS text[]),
        CAST(:args AS text[]), CAST(:delays AS float8[])
    ) AS wanted (task, lock, name, args, delay_s)
    WHERE NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = name AND status = 'todo'
    )
    """
)


@dataclass(frozen=True)
class Job:
    """`name` waits at most once; of one `lock` one is done at a time."""

    task: str
    name: str
    lock: str | None = None
    lane: int | None = None
    delay_s: float = 0.0


def calibrate(lane: int) -> Job:
    """Settle the breaches of a lane that wait."""
    return Job("calibrate", f"calibrate-{lane}", _lock(lane), lane)


def orders(lane: int) -> Job:
    """Start batteries and roll back in a lane: what was ordered, and newcomers."""
    return Job("orders", f"orders-{lane}", _lock(lane), lane)


LOOK: Final = Job("look", "look")
"""See what waits in the tables, and make jobs of it."""
HEADS: Final = Job("heads", "heads", lock="heads")
"""Sign the heads of all chains."""
REPUBLISH: Final = Job("republish", "republish", delay_s=2.0)
"""Publish again what the broker may have lost; workers that reconnect together want it once."""


class JobQueue:
    """The jobs of a store on PostgreSQL. Any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def defer(self, jobs: Collection[Job]) -> None:
        """Let each of these wait, once. Raises StoreUnavailableError."""
        for attempt in range(ATTEMPTS):
            try:
                self._defer(sorted(jobs, key=lambda job: job.name))
            except IntegrityError:  # another process has put one of them there meanwhile
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def _defer(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        wanted = {
            "queue": QUEUE,
            "tasks": [job.task for job in jobs],
            "locks": [job.lock for job in jobs],
            "names": [job.name for job in jobs],
            "args": [_arguments(job) for job in jobs],
            "delays": [job.delay_s for job in jobs],
        }
        with self._store.write() as db:
            db.connection().execute(_DEFER, wanted)


def _lock(lane: int) -> str:
    return f"lane-{lane}"


def _arguments(job: Job) -> str:
    return msgspec.json.encode({} if job.lane is None else {"lane": job.lane}).decode()
