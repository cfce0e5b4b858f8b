"""The breaches of a vehicle and what became of each, in stable pages. Must never load a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import tuple_
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from cloud.store.tables import Breach, RevisionRow

Key = tuple[float, int]

_ORDER: Final = (col(Breach.odometer), col(Breach.id))
_TRACE: Final[Any] = Breach.trace


def page(
    db: Session, after: Key | None, limit: int, *, vehicle_id: str, state: str | None = None
) -> Sequence[Breach]:
    """Breaches of a vehicle, the highest odometer first; with a `state`, only those in it."""
    query = select(Breach).where(Breach.vehicle_id == vehicle_id).options(defer(_TRACE))
    query = query.order_by(*(one.desc() for one in _ORDER)).limit(limit)
    if state is not None:
        query = query.where(Breach.state == state)
    if after is not None:
        query = query.where(tuple_(*_ORDER) < tuple_(*after))
    return db.exec(query).all()


def key(breach: Breach) -> Key:
    """Where a page ends."""
    return breach.odometer, breach.id or 0


def brought(db: Session, breaches: Sequence[Breach]) -> dict[str, int]:
    """By message id the number of the revision that a breach brought, of those that brought one."""
    if not breaches:
        return {}
    query = select(RevisionRow.cause_message_id, RevisionRow.number).where(
        RevisionRow.vehicle_id == breaches[0].vehicle_id,
        col(RevisionRow.cause_message_id).in_([breach.message_id for breach in breaches]),
    )
    return dict(db.exec(query).all())
