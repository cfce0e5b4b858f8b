"""Read what happened: in order for those who follow it, the latest first for those who look back.

A place in the order is (transaction, id). Must never give an event before one that may still be
committed ahead of it: on PostgreSQL only what began before the oldest running transaction is read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, func, literal_column, text, tuple_, update
from sqlmodel import Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from cloud.store.event_tables import Event, EventCursor
from cloud.store.pages import held

Place = tuple[int, int]
START: Final[Place] = (-1, -1)
_ORDER: Final = (col(Event.tx), col(Event.id))
_SETTLED: Final[ColumnElement[bool]] = col(Event.tx) < literal_column(
    "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)"
)
_RESTORED: Final = text(
    "UPDATE event SET tx = 0 WHERE tx > CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)"
)
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


def place_of(event: Event) -> Place:
    """Where an event stands in the order."""
    return event.tx or 0, event.id or 0


def newest_place(db: Session) -> Place:
    """After everything that can be read now; START when there is nothing."""
    query = select(Event.tx, Event.id).order_by(*(part.desc() for part in _ORDER)).limit(1)
    row = db.exec(query.where(*_settled(db))).first()
    return (row[0] or 0, row[1] or 0) if row else START


def oldest_place(db: Session) -> Place | None:
    """Of what is still kept; None when that is nothing."""
    row = db.exec(select(Event.tx, Event.id).order_by(*_ORDER).limit(1)).first()
    return (row[0] or 0, row[1] or 0) if row else None


def after(db: Session, place: Place, limit: int, until: Place | None = None) -> Sequence[Event]:
    """Up to `limit` events behind `place`, and not behind `until`, in order."""
    query = select(Event).where(tuple_(*_ORDER) > tuple_(*place), *_settled(db))
    if until is not None:
        query = query.where(tuple_(*_ORDER) <= tuple_(*until))
    return db.exec(query.order_by(*_ORDER).limit(limit)).all()


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


def cursor(db: Session, name: str) -> Place | None:
    """How far a reader has come; None: it has not begun."""
    row = db.get(EventCursor, name)
    return (row.tx, row.event) if row else None


def set_cursor(db: Session, name: str, place: Place) -> None:
    """A reader has come this far."""
    db.merge(EventCursor(name=name, tx=place[0], event=place[1]))


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


def after_restore(db: Session) -> None:
    """A restored PostgreSQL counts transactions anew: what is older than them comes first."""
    connection = db.connection()
    if connection.dialect.name == "postgresql" and connection.execute(_RESTORED).rowcount:
        newest = select(func.max(Event.id)).scalar_subquery()
        db.exec(update(EventCursor).values(tx=0, event=func.coalesce(newest, 0)))


def _settled(db: Session) -> tuple[ColumnElement[bool], ...]:
    return (_SETTLED,) if db.connection().dialect.name == "postgresql" else ()


def _kind_is(kind: str) -> ColumnElement[bool]:
    if kind.endswith("."):
        return col(Event.kind).startswith(kind, autoescape=True)
    return col(Event.kind) == kind
