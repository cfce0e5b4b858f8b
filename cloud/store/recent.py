"""How fast things went lately, for `twin-cloud doctor`: read from the newest rows, backwards.

Must never read more than the newest ROWS of a table, the vehicles' last words apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func
from sqlmodel import Session, col, select

from cloud.store.tables import Breach, Quarantine, RevisionRow, Trip, Vehicle

ROWS: Final = 5000
LATENCIES: Final = 500


@dataclass(frozen=True)
class Outboxes:
    """What vehicles said last of what they hold back: how many vehicles, how many messages."""

    vehicles: int
    messages: int


def trips_per_s(db: Session, now: float, window_s: float) -> float:
    """Trip summaries committed."""
    return _rate(db, Trip.received_at, Trip.id, now, window_s)


def revisions_per_s(db: Session, now: float, window_s: float) -> float:
    """Revisions made."""
    return _rate(db, RevisionRow.created_at, RevisionRow.id, now, window_s)


def refused(db: Session, since: float) -> int:
    """Different messages in the quarantine that came, for the last time, after `since`."""
    query = select(func.count()).select_from(Quarantine).where(col(Quarantine.received_at) > since)
    return db.exec(query).one()


def outboxes(db: Session) -> Outboxes:
    """Over all vehicles."""
    waiting = col(Vehicle.outbox_depth) > 0
    depth = func.coalesce(func.sum(Vehicle.outbox_depth), 0)
    vehicles, messages = db.exec(select(func.count(), depth).where(waiting)).one()
    return Outboxes(vehicles, int(messages or 0))


def push_latencies_s(db: Session) -> list[float]:
    """From a breach's commit to the broker's word for its revision, of the newest; sorted."""
    newest = (
        select(RevisionRow.vehicle_id, RevisionRow.cause_message_id, RevisionRow.published_at)
        .where(RevisionRow.kind == "breach", col(RevisionRow.published_at).is_not(None))
        .order_by(col(RevisionRow.id).desc())
        .limit(LATENCIES)
        .subquery()
    )
    query = select(newest.c.published_at - Breach.received_at).where(
        col(Breach.message_id) == newest.c.cause_message_id,
        col(Breach.vehicle_id) == newest.c.vehicle_id,
    )
    return sorted(max(found, 0.0) for found in db.exec(query))


def _rate(db: Session, at: Any, row_id: Any, now: float, window_s: float) -> float:
    """Of the newest ROWS those within the window; when all of them are, over their own time."""
    newest = select(col(at).label("at")).order_by(col(row_id).desc()).limit(ROWS).subquery()
    within = select(func.count(), func.min(newest.c.at)).where(newest.c.at > now - window_s)
    count, oldest = db.exec(within).one()
    over_s = max(now - oldest, 1.0) if count == ROWS else window_s
    return float(count / over_s)
