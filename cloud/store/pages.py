"""Read for the operator: stable pages, each with a unique last key.

Must never write. `after` is the key of the last item of the page before, None for the first page;
each query gives at most `limit` rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from cloud.store.tables import ProvisionalRow, Quarantine, RevisionRow, Trip, Vehicle

Cohorts = frozenset[str] | None


def trips(
    db: Session, after: tuple[float, int] | None, limit: int, *, vehicle_id: str
) -> Sequence[Trip]:
    """Trips of a vehicle, the highest odometer first."""
    order = (col(Trip.odometer_end), col(Trip.id))
    query = select(Trip).where(Trip.vehicle_id == vehicle_id)
    query = query.order_by(order[0].desc(), order[1].desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    return db.exec(query).all()


def revisions(
    db: Session, after: int | None, limit: int, *, vehicle_id: str
) -> Sequence[RevisionRow]:
    """Revisions of a vehicle, the newest first."""
    query = select(RevisionRow).where(RevisionRow.vehicle_id == vehicle_id)
    query = query.order_by(col(RevisionRow.number).desc()).limit(limit)
    if after is not None:
        query = query.where(RevisionRow.number < after)
    return db.exec(query).all()


def provisionals(
    db: Session, after: tuple[float, int] | None, limit: int, *, vehicle_id: str
) -> Sequence[ProvisionalRow]:
    """What a vehicle made for itself, the highest odometer first."""
    order = (col(ProvisionalRow.odometer), col(ProvisionalRow.id))
    query = select(ProvisionalRow).where(ProvisionalRow.vehicle_id == vehicle_id)
    query = query.order_by(order[0].desc(), order[1].desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    return db.exec(query).all()


def quarantined(
    db: Session, after: int | None, limit: int, *, cohorts: Cohorts
) -> Sequence[Quarantine]:
    """Refused messages of vehicles of these cohorts (None: all of them), the latest first."""
    query = select(Quarantine).order_by(col(Quarantine.id).desc()).limit(limit)
    if cohorts is not None:
        theirs = select(Vehicle.vehicle_id).where(col(Vehicle.cohort).in_(cohorts))
        query = query.where(col(Quarantine.vehicle_id).in_(theirs))
    if after is not None:
        query = query.where(col(Quarantine.id) < after)
    return db.exec(query).all()
