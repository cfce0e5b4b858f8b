"""Take a refused message in again, on an operator's word.

Must never answer for a message of a vehicle that the caller may not see.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api import schemas, views
from cloud.api.access import Here
from cloud.api.authority import Operator
from cloud.api.operator_schemas import Verdict
from cloud.api.problems import ProblemError, not_found, responses
from cloud.api.writing import WRITE_STATUSES, Answer, OnceOnly, named
from cloud.errors import RetryError
from cloud.intake.retries import retry
from cloud.store import pages
from cloud.store.tables import Quarantine

router = APIRouter(prefix="/api/v1", tags=["operation"])
LARGEST = 2**63 - 1


@router.post(
    "/quarantine/{number}/retry",
    response_model=schemas.QuarantineItem,
    responses=responses(*WRITE_STATUSES),
)
def retry_message(
    here: Here, actor: Operator, once: OnceOnly, number: int, told: Verdict
) -> Response:
    """Take a refused message in again; it leaves the quarantine, or stays with the reason (409)."""

    def write(db: Session) -> Answer:
        row = db.get(Quarantine, number) if 0 < number <= LARGEST else None
        if row is None or not pages.may_see_quarantined(db, row, actor.cohorts):
            raise not_found(f"message {number} in the quarantine")
        item = views.quarantine_item(row)
        try:
            retry(db, row, here.catalogue, here.clock(), named(actor, told.by))
        except RetryError as error:
            raise ProblemError(409, str(error)) from error
        return Answer(item)

    return once.write(actor, write)
