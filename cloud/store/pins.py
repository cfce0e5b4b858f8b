"""Somebody's word that a vehicle keeps the content of one revision, until somebody ends it.

While a pin is in force breaches are recorded and bring no revision, and no order but a battery's
replacement is taken. Must never outlive the battery that it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from cloud.errors import PinError, RollBackError
from cloud.store import events, locks, revisions, roll_back_orders
from cloud.store.audit_tables import Pin
from cloud.store.pinned import in_force
from cloud.store.revisions import of_lane
from cloud.store.tables import RevisionRow, RollBackOrder


def place(db: Session, wanted: Pin) -> Pin:
    """Keep an order. Raises PinError: it is pinned already, or cannot have that content."""
    locks.vehicles(db, [wanted.vehicle_id])
    target(db, wanted)
    known = in_force(db, [wanted.vehicle_id]).get(wanted.vehicle_id)
    if known is not None:
        problem = f"it is pinned to revision {known.to_revision} by {known.ordered_by} already"
        raise PinError(wanted.vehicle_id, problem)
    db.add(wanted)
    db.flush()
    _tell(db, wanted, "order.placed", wanted.ordered_at, wanted.ordered_by)
    return wanted


def end(db: Session, vehicle_id: str, by: str, why: str, now: float) -> Pin:
    """Calibrations bring revisions again. Raises PinError: it is not pinned."""
    locks.vehicles(db, [vehicle_id])
    known = in_force(db, [vehicle_id]).get(vehicle_id)
    if known is None:
        raise PinError(vehicle_id, "it is not pinned")
    known.ended_at, known.ended_by, known.ended_why = now, by[:64], why[:256]
    db.add(known)
    db.flush()
    _tell(db, known, "pin.ended", now, by)
    return known


def pending(db: Session, limit: int, lane: int | None = None) -> Sequence[Pin]:
    """Pins whose revision has not been made, the oldest first; of one lane, if it is given."""
    query = select(Pin).where(col(Pin.done_at).is_(None))
    if lane is not None:
        query = query.where(col(Pin.vehicle_id).in_(of_lane(lane)))
    return db.exec(query.order_by(col(Pin.id)).limit(limit)).all()


def target(db: Session, pin: Pin) -> RevisionRow:
    """The revision whose content is kept; also the one that stands. Raises PinError."""
    row = revisions.by_number(db, pin.vehicle_id, pin.to_revision)
    standing = revisions.newest_for(db, pin.vehicle_id)
    if row is not None and standing is not None and row.number == standing.number:
        return row
    order = RollBackOrder(
        vehicle_id=pin.vehicle_id,
        to_revision=pin.to_revision,
        ordered_by=pin.ordered_by,
        why=pin.why,
        ordered_at=pin.ordered_at,
    )
    try:
        return roll_back_orders.target(db, order)
    except RollBackError as error:
        problem = f"it cannot be pinned to revision {pin.to_revision}: {error.problem}"
        raise PinError(pin.vehicle_id, problem) from error


def _tell(db: Session, pin: Pin, kind: str, at: float, actor: str) -> None:
    vehicle = revisions.vehicles(db, [pin.vehicle_id])[pin.vehicle_id]
    told = {"order": f"pin-{pin.id}", "why": pin.why, "to_revision": pin.to_revision}
    events.of_vehicle(db, kind, at, vehicle, actor=actor, **told)
