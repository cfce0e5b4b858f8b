"""Revisions that wait for an operator: approved they are pushed, rejected they stand no more.

A revision is append-only: what is written is the decision alone. Must never decide twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlmodel import Session, col, select

from cloud.errors import ApprovalError
from cloud.store import events, locks, revisions
from cloud.store.tables import RevisionRow, Vehicle

PENDING, APPROVED, REJECTED = "pending", "approved", "rejected"
REJECTED_REASON: Final = "rejected_by_operator"


def decide(
    db: Session, vehicle_id: str, number: int, *, approved: bool, actor: str, why: str, now: float
) -> RevisionRow:
    """Note an operator's decision. Raises ApprovalError: the revision waits for none."""
    vehicle = locks.vehicles(db, [vehicle_id]).get(vehicle_id)
    row = revisions.by_number(db, vehicle_id, number)
    if vehicle is None or row is None:
        raise ApprovalError(vehicle_id, number, "there is no such revision")
    if row.approval != PENDING:
        raise ApprovalError(vehicle_id, number, f"it is {row.approval or 'in no need of it'}")
    row.approval = APPROVED if approved else REJECTED
    row.approval_by, row.approval_at, row.approval_why = actor, now, why
    if not approved:
        row.verdict, row.verdict_reason, row.verdict_at = "refused", REJECTED_REASON, now
        vehicle.calibrations = max(vehicle.calibrations - 1, 0)
    kind = "revision.approved" if approved else "revision.rejected"
    events.of_vehicle(db, kind, now, vehicle, actor=actor, revision=number, why=why)
    return row


def waiting(
    db: Session, before: int | None, limit: int, cohorts: Collection[str] | None
) -> Sequence[RevisionRow]:
    """Revisions that wait for a decision, the latest first."""
    query = select(RevisionRow).where(RevisionRow.approval == PENDING)
    if before is not None:
        query = query.where(col(RevisionRow.id) < before)
    if cohorts is not None:
        seen = select(Vehicle.vehicle_id).where(col(Vehicle.cohort).in_(cohorts))
        query = query.where(col(RevisionRow.vehicle_id).in_(seen))
    return db.exec(query.order_by(col(RevisionRow.id).desc()).limit(limit)).all()


def unpublished(db: Session) -> dict[int, str]:
    """Revisions that were approved and that the broker has not got: their vehicles, by id."""
    query = select(RevisionRow.id, RevisionRow.vehicle_id).where(
        RevisionRow.approval == APPROVED,
        col(RevisionRow.published_at).is_(None),
        col(RevisionRow.verdict).is_(None),
    )
    return {number or 0: vehicle_id for number, vehicle_id in db.exec(query)}
