"""Somebody's word that a battery was replaced, from its order to the revision that it brings.

Must never take an order that the chain could not follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from cloud.errors import BatteryOrderError
from cloud.store import events, locks, revisions
from cloud.store.revisions import of_lane
from cloud.store.tables import BatteryOrder, Breach, FleetPriorRow, Vehicle
from common.messages import MAX_ODOMETER


def place(db: Session, wanted: BatteryOrder) -> BatteryOrder:
    """Keep an order; the same vehicle and odometer again is the same order.

    Raises BatteryOrderError: no revision can follow from it.
    """
    if not 0 <= wanted.odometer <= MAX_ODOMETER:  # neither is what is no number
        problem = f"an odometer is between 0 and {MAX_ODOMETER:g}, not {wanted.odometer}"
        raise BatteryOrderError(wanted.vehicle_id, problem)
    vehicle = locks.vehicles(db, [wanted.vehicle_id]).get(wanted.vehicle_id)
    known = db.exec(
        select(BatteryOrder).where(
            BatteryOrder.vehicle_id == wanted.vehicle_id, BatteryOrder.odometer == wanted.odometer
        )
    ).first()
    if known is not None:
        return known
    if vehicle is None or vehicle.bundle is None:
        raise BatteryOrderError(wanted.vehicle_id, "it has not said yet which bundle it runs")
    standing = revisions.newest_standing(db, wanted.vehicle_id)
    if standing is not None and wanted.odometer < standing.odometer:
        problem = (
            f"its revision {standing.number} was learned at odometer {standing.odometer:.6g}, "
            f"after {wanted.odometer:.6g}; give one that is no lower"
        )
        raise BatteryOrderError(wanted.vehicle_id, problem)
    db.add(wanted)
    db.flush()
    events.of_vehicle(
        db, "order.placed", wanted.ordered_at, vehicle, actor=wanted.ordered_by,
        order=f"battery_replaced-{wanted.id}", why=wanted.why, odometer=wanted.odometer,
    )  # fmt: skip
    return wanted


def pending(db: Session, limit: int, lane: int | None = None) -> Sequence[BatteryOrder]:
    """Orders that have brought no revision yet, the oldest first; of one lane, if it is given."""
    query = select(BatteryOrder).where(col(BatteryOrder.revision).is_(None))
    if lane is not None:
        query = query.where(col(BatteryOrder.vehicle_id).in_(of_lane(lane)))
    return db.exec(query.order_by(col(BatteryOrder.id)).limit(limit)).all()


def newcomers(
    db: Session, limit: int, seen_before: float, lane: int | None = None
) -> Sequence[Vehicle]:
    """Vehicles without any revision or pending breach, whose bundle has a fleet prior.

    Only those first seen until then; of one lane, if it is given.
    """
    waits = select(Breach.id).where(
        Breach.vehicle_id == Vehicle.vehicle_id, Breach.state == "pending"
    )
    query = (
        select(Vehicle)
        .where(
            ~col(Vehicle.started),
            col(Vehicle.bundle).in_(select(FleetPriorRow.bundle)),
            Vehicle.trips > 0,
            Vehicle.first_seen_at <= seen_before,
            ~waits.exists(),
        )
        .order_by(col(Vehicle.vehicle_id))
        .limit(limit)
    )
    if lane is not None:
        query = query.where(Vehicle.lane == lane)
    return db.exec(query).all()
