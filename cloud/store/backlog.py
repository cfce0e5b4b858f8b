"""How much waits: bounded looks for those who watch the service.

Must never read more rows than its limit says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import case, func, text
from sqlmodel import Session, col, select

from cloud.store.alert_tables import Delivery
from cloud.store.job_queue import QUEUE
from cloud.store.tables import Breach

AT_MOST: Final = 10_000
SILENT_S: Final = 10.0
"""A worker whose heartbeat is older does not live; its jobs ought to be with others by then."""

_SOME = (
    select(col(Breach.received_at).label("at"))
    .where(col(Breach.state) == "pending")
    .limit(AT_MOST)
    .subquery()
)
_PENDING = select(func.count(), func.min(_SOME.c.at)).select_from(_SOME)
_UNSENT = (
    select(col(Delivery.made_at).label("at"), col(Delivery.attempts).label("attempts"))
    .where(col(Delivery.state) == "pending")
    .limit(AT_MOST)
    .subquery()
)
_AGAIN = func.coalesce(func.sum(case((_UNSENT.c.attempts > 0, 1), else_=0)), 0)
_WAITING = select(func.count(), _AGAIN, func.min(_UNSENT.c.at)).select_from(_UNSENT)
_LOST = select(Delivery.id).where(col(Delivery.state) == "given_up").limit(AT_MOST).subquery()
_GIVEN_UP = select(func.count()).select_from(_LOST)
_JOBS: Final = text(
    """
    WITH seen AS (
        SELECT j.status::text AS status,
            j.status = 'todo' AND coalesce(j.scheduled_at, now()) <= now() AS is_due,
            coalesce(j.scheduled_at, (
                SELECT min(e.at) FROM procrastinate_events e WHERE e.job_id = j.id
            )) AS since,
            w.last_heartbeat
        FROM procrastinate_jobs j LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
        WHERE j.queue_name = :queue
        LIMIT :at_most
    )
    SELECT
        count(*) FILTER (WHERE status = 'todo'),
        count(*) FILTER (WHERE status = 'doing'),
        count(*) FILTER (WHERE status = 'failed'),
        count(*) FILTER (
            WHERE status = 'doing'
            AND coalesce(last_heartbeat, '-infinity') < now() - :silent_s * interval '1 second'
        ),
        coalesce(extract(epoch FROM now() - min(since) FILTER (WHERE is_due)), 0)::float8,
        (SELECT count(*) FROM procrastinate_workers
            WHERE last_heartbeat >= now() - :silent_s * interval '1 second')
    FROM seen
    """
)


@dataclass(frozen=True)
class Pending:
    """Breaches that wait, AT_MOST counted; when the oldest of these was committed."""

    breaches: int
    oldest_at: float | None


@dataclass(frozen=True)
class Deliveries:
    """To webhooks, AT_MOST counted: those that wait, those of them that have failed before.

    `oldest_at` is when the oldest that waits was made; those given up are kept for a while.
    """

    waiting: int
    failing: int
    given_up: int
    oldest_at: float | None


@dataclass(frozen=True)
class Jobs:
    """Of the task queue, AT_MOST counted; its own clock says how long the oldest has been due.

    Stalled are those in hand of a worker that is silent; `workers` are not.
    """

    todo: int
    doing: int
    failed: int
    stalled: int
    oldest_s: float
    workers: int


def pending(db: Session) -> Pending:
    """What waits for the worker."""
    breaches, oldest_at = db.exec(_PENDING).one()
    return Pending(breaches, oldest_at)


def deliveries(db: Session) -> Deliveries:
    """What waits for webhooks, and what they will never get."""
    waiting, failing, oldest_at = db.exec(_WAITING).one()
    return Deliveries(waiting, failing, db.exec(_GIVEN_UP).one(), oldest_at)


def jobs(db: Session) -> Jobs | None:
    """The task queue; None on SQLite, which has none."""
    connection = db.connection()
    if connection.dialect.name != "postgresql":
        return None
    limits = {"queue": QUEUE, "at_most": AT_MOST, "silent_s": SILENT_S}
    return Jobs(*connection.execute(_JOBS, limits).one())
