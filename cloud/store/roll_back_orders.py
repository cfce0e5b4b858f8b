"""Somebody's wish to have an earlier revision's content again, from its order to its revision.

Must never take an order that the vehicle could not follow, nor one back that was carried out.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from cloud.errors import RollBackError
from cloud.store import events, locks, pinned, revisions
from cloud.store.revisions import of_lane
from cloud.store.tables import RevisionRow, RollBackOrder


def place(db: Session, wanted: RollBackOrder) -> RollBackOrder:
    """Keep an order; the same one again, while it waits, is the same order.

    Raises RollBackError: why the vehicle cannot go back to that revision.
    """
    locks.vehicles(db, [wanted.vehicle_id])
    row = target(db, wanted)
    if pinned.in_force(db, [wanted.vehicle_id]):
        problem = "it is pinned; end that first"
        raise RollBackError(wanted.vehicle_id, wanted.to_revision, problem)
    known = db.exec(
        select(RollBackOrder).where(
            RollBackOrder.vehicle_id == wanted.vehicle_id,
            RollBackOrder.to_revision == wanted.to_revision,
            col(RollBackOrder.done_at).is_(None),
        )
    ).first()
    if known is not None:
        return known
    db.add(wanted)
    db.flush()
    vehicle = revisions.vehicles(db, [row.vehicle_id])[row.vehicle_id]
    events.of_vehicle(
        db, "order.placed", wanted.ordered_at, vehicle, actor=wanted.ordered_by,
        order=f"roll_back-{wanted.id}", why=wanted.why, to_revision=wanted.to_revision,
    )  # fmt: skip
    return wanted


def pending(db: Session, limit: int, lane: int | None = None) -> Sequence[RollBackOrder]:
    """Orders that have not been carried out, the oldest first; of one lane, if it is given."""
    query = select(RollBackOrder).where(col(RollBackOrder.done_at).is_(None))
    if lane is not None:
        query = query.where(col(RollBackOrder.vehicle_id).in_(of_lane(lane)))
    return db.exec(query.order_by(col(RollBackOrder.id)).limit(limit)).all()


def target(db: Session, order: RollBackOrder) -> RevisionRow:
    """The revision whose content is wanted. Raises RollBackError."""
    row = revisions.by_number(db, order.vehicle_id, order.to_revision)
    if row is None:
        raise RollBackError(order.vehicle_id, order.to_revision, "there is no such revision")
    problem = _problem(db, row)
    if problem is not None:
        raise RollBackError(order.vehicle_id, order.to_revision, problem)
    return row


def _problem(db: Session, row: RevisionRow) -> str | None:
    vehicle = revisions.vehicles(db, [row.vehicle_id]).get(row.vehicle_id)
    if vehicle is None or vehicle.bundle != row.bundle:
        return "the vehicle runs another bundle now"
    if row.verdict == "refused":
        return f"the vehicle refused it ({row.verdict_reason})"
    replaced = revisions.replacements(db, [row.vehicle_id]).get(row.vehicle_id)
    if replaced is not None and row.number < replaced.number:
        return "it was learned of a battery that has been replaced"
    standing = revisions.newest_standing(db, row.vehicle_id, row.bundle)
    if standing is not None and standing.number == row.number:
        return "it is the newest one that stands"
    return None
