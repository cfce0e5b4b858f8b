"""Read what happened: in order for those who follow it, the latest first for those who look back.

Ids come in the order of the commits (`cloud.store.events`), so who has read up to one has missed
none. Must never be given anything but ids of events as places in that order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from cloud.store.event_tables import Event, EventCursor
from cloud.store.pages import held

START: Final = 0
SERVICE_KEPT_S: Final = 30 * 86400.0
ACTORS_KEPT_S: Final = 730 * 86400.0
DELETED_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Wanted:
    """Which events; None: all of them. A kind that ends with a dot is a whole family."""

    kinds: Collection[str] | None = None
    vehicle_id: str | None = None
    cohort: str | None = None
    cohorts: Collection[str] | None = None  # that the reader may see

    def takes(self, event: Event) -> bool:
        """Whether this event is wanted."""
        return (
            (self.kinds is None or any(_fits(event.kind, kind) for kind in self.kinds))
            and self.vehicle_id in {None, event.vehicle_id}
            and self.cohort in {None, event.cohort}
            and (self.cohorts is None or event.cohort in self.cohorts)
        )


def _fits(kind: str, wanted: str) -> bool:
    return kind == wanted or (wanted.endswith(".") and kind.startswith(wanted))


def newest_id(db: Session) -> int:
    """Of all that can be read now; START when there is nothing."""
    return db.exec(select(func.max(Event.id))).one() or START


def oldest_id(db: Session) -> int | None:
    """Of what is still kept; None when that is nothing."""
    return db.exec(select(func.min(Event.id))).one()


def after(db: Session, last: int, limit: int, until: int | None = None) -> Sequence[Event]:
    """Up to `limit` events behind `last`, and not behind `until`, in order."""
    query = select(Event).where(col(Event.id) > last)
    if until is not None:
        query = query.where(col(Event.id) <= until)
    return db.exec(query.order_by(col(Event.id)).limit(limit)).all()


def audited(
    db: Session,
    before: int | None,
    limit: int,
    *,
    wanted: Wanted,
    actor: str | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Sequence[Event]:
    """What people did, the latest first."""
    query = _latest_first(before, limit, wanted, since, until)
    query = query.where(col(Event.actor).is_not(None))
    if actor is not None:
        query = query.where(Event.actor == actor)
    return db.exec(query).all()


def happened(
    db: Session,
    before: int | None,
    limit: int,
    *,
    wanted: Wanted,
    since: float | None = None,
    until: float | None = None,
) -> Sequence[Event]:
    """What people and the service did, the latest first."""
    return db.exec(_latest_first(before, limit, wanted, since, until)).all()


def _latest_first(
    before: int | None, limit: int, wanted: Wanted, since: float | None, until: float | None
) -> SelectOfScalar[Event]:
    query = select(Event).where(
        *held(
            (before, col(Event.id).__lt__),
            (wanted.vehicle_id, col(Event.vehicle_id).__eq__),
            (wanted.cohort, col(Event.cohort).__eq__),
            (wanted.cohorts, col(Event.cohort).in_),
            (since, col(Event.at).__ge__),
            (until, col(Event.at).__lt__),
        )
    )
    if wanted.kinds is not None:
        query = query.where(or_(*(_kind_is(kind) for kind in wanted.kinds)))
    return query.order_by(col(Event.id).desc()).limit(limit)


def cursor(db: Session, name: str) -> int | None:
    """How far a reader has come; None: it has not begun."""
    row = db.get(EventCursor, name)
    return row.event if row else None


def set_cursor(db: Session, name: str, last: int) -> None:
    """A reader has come this far."""
    db.merge(EventCursor(name=name, event=last))


def delete_old(db: Session, now: float) -> int:
    """Delete what is kept no longer, what people did much later; at most DELETED_AT_ONCE."""
    old = (
        select(Event.id)
        .where(
            or_(
                col(Event.actor).is_(None) & (col(Event.at) < now - SERVICE_KEPT_S),
                col(Event.at) < now - ACTORS_KEPT_S,
            ),
            col(Event.at) < now - SERVICE_KEPT_S,
        )
        .order_by(col(Event.at))
        .limit(DELETED_AT_ONCE)
    )
    return int(db.exec(delete(Event).where(col(Event.id).in_(old))).rowcount)


def _kind_is(kind: str) -> ColumnElement[bool]:
    if kind.endswith("."):
        return col(Event.kind).startswith(kind, autoescape=True)
    return col(Event.kind) == kind
