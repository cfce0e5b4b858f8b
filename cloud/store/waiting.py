"""In which lanes operators' orders, or vehicles that are new, wait for a worker.

Must never write.
"""

from __future__ import annotations

from sqlmodel import Session, col, or_, select

from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.tables import BatteryOrder, Breach, FleetPriorRow, RollBackOrder, Vehicle


def lanes_with_orders(db: Session) -> set[int]:
    """Lanes of vehicles with an order that is not carried out."""
    replaced = select(BatteryOrder.vehicle_id).where(col(BatteryOrder.revision).is_(None))
    others = [
        select(kind.vehicle_id).where(col(kind.done_at).is_(None))
        for kind in (RollBackOrder, RecalibrationOrder, Pin)
    ]
    query = select(Vehicle.lane).where(
        or_(*(col(Vehicle.vehicle_id).in_(ordered) for ordered in (replaced, *others)))
    )
    return {lane for lane in db.exec(query.distinct()) if lane is not None}


def lanes_with_newcomers(db: Session, since: float, before: float) -> set[int]:
    """Lanes of vehicles first seen in that time that a fleet prior may start."""
    waits = select(Breach.id).where(
        Breach.vehicle_id == Vehicle.vehicle_id, Breach.state == "pending"
    )
    query = select(Vehicle.lane).where(
        ~col(Vehicle.started),
        col(Vehicle.bundle).in_(select(FleetPriorRow.bundle)),
        Vehicle.trips > 0,
        col(Vehicle.first_seen_at).between(since, before),
        ~waits.exists(),
    )
    return {lane for lane in db.exec(query.distinct()) if lane is not None}
