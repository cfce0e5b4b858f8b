"""Cohorts: each vehicle is in exactly one; a cohort is there as long as somebody is in it.

Must never move a vehicle without an event that says who did it, and why.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, func
from sqlmodel import Session, col, select

from cloud.store import events
from cloud.store.tables import Vehicle


@dataclass(frozen=True)
class Cohort:
    """A cohort and how many vehicles are in it, and online, now."""

    name: str
    vehicles: int
    online: int


def sizes(db: Session, among: Collection[str] | None) -> list[Cohort]:
    """Every cohort by name; only these where some are given."""
    online = func.sum(case((col(Vehicle.online).is_(True), 1), else_=0))
    query = select(Vehicle.cohort, func.count(), online).group_by(Vehicle.cohort)
    if among is not None:
        query = query.where(col(Vehicle.cohort).in_(among))
    rows = db.exec(query.order_by(Vehicle.cohort)).all()
    return [Cohort(name, count, int(reachable or 0)) for name, count, reachable in rows]


def move(db: Session, vehicle: Vehicle, to: str, actor: str, why: str, now: float) -> bool:
    """Put a vehicle into a cohort; False: it is there already. Both cohorts see the event."""
    if vehicle.cohort == to:
        return False
    left, vehicle.cohort = vehicle.cohort, to
    detail = {"from": left, "to": to, "why": why}
    for cohort in (left, to):
        events.add(
            db, "vehicle.moved", now,
            vehicle_id=vehicle.vehicle_id, cohort=cohort, actor=actor, detail=detail,
        )  # fmt: skip
    return True
