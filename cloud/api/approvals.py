"""Revisions that wait for an operator, and the operator's decision.

Must never push: the worker does, once the decision is committed.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api.access import Here, known_revision, known_vehicle
from cloud.api.authority import Actor, Operator, Viewer
from cloud.api.operator_schemas import ApprovalItem, Verdict
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, responses
from cloud.api.views import some_utc, utc
from cloud.api.writing import WRITE_STATUSES, Answer, Once, OnceOnly, named
from cloud.errors import ApprovalError
from cloud.store import approvals
from cloud.store.tables import RevisionRow

router = APIRouter(prefix="/api/v1", tags=["approvals"])


@router.get("/approvals", response_model=Page[ApprovalItem], responses=responses())
def list_approvals(here: Here, actor: Viewer, paging: Paged) -> Response:
    """Revisions that were made under a policy of approval, and wait; the latest first."""
    rows = partial(approvals.waiting, cohorts=actor.cohorts)
    items = lambda _db, found: [_item(row) for row in found]  # noqa: E731
    return answer(here.store, paging, Listing(int, rows, lambda row: row.id or 0, items))


@router.post(
    "/vehicles/{vehicle_id}/revisions/{number}/approve",
    response_model=ApprovalItem,
    responses=responses(*WRITE_STATUSES),
)
def approve(
    actor: Operator, once: OnceOnly, vehicle_id: str, number: int, told: Verdict
) -> Response:
    """Let a revision be pushed that waits."""
    return _decide(once, actor, vehicle_id, number, told, approved=True)


@router.post(
    "/vehicles/{vehicle_id}/revisions/{number}/reject",
    response_model=ApprovalItem,
    responses=responses(*WRITE_STATUSES),
)
def reject(
    actor: Operator, once: OnceOnly, vehicle_id: str, number: int, told: Verdict
) -> Response:
    """Keep a revision from ever being pushed; it stays in the chain with the reason."""
    return _decide(once, actor, vehicle_id, number, told, approved=False)


def _decide(
    once: Once, actor: Actor, vehicle_id: str, number: int, told: Verdict, *, approved: bool
) -> Response:
    def write(db: Session) -> Answer:
        known_vehicle(db, actor, vehicle_id)
        known_revision(db, vehicle_id, number)
        who, now = named(actor, told.by), once.here.clock()
        try:
            row = approvals.decide(
                db, vehicle_id, number, approved=approved, actor=who, why=told.why, now=now
            )
        except ApprovalError as error:
            raise ProblemError(409, str(error)) from error
        return Answer(_item(row))

    return once.write(actor, write)


def _item(row: RevisionRow) -> ApprovalItem:
    return ApprovalItem(
        vehicle_id=row.vehicle_id,
        revision=row.number,
        approval=row.approval,  # type: ignore[arg-type]  # one of the three
        made_at=some_utc(row.created_at),
        odometer=row.odometer,
        decided_by=row.approval_by,
        decided_at=utc(row.approval_at),
        why=row.approval_why,
    )
