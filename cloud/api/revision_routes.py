"""The routes under a vehicle for its revisions: the list, one of them, two compared, provisionals.

Must never write to the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api import comparing, history_schemas, schemas, views
from cloud.api.access import Here, known_revision, known_vehicle, require_vehicle
from cloud.api.authority import Viewer
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, not_found, responses
from cloud.store import pages, revisions
from cloud.store.tables import ProvisionalRow

router = APIRouter(prefix="/api/v1/vehicles/{vehicle_id}", tags=["revisions"])

Kind = Literal["breach", "fleet_prior", "replacement", "roll_back", "recalibration"]
Verdict = Literal["applied", "refused", "none"]


@router.get("/revisions", response_model=Page[schemas.RevisionItem], responses=responses(404))
def list_revisions(
    here: Here,
    viewer: Viewer,
    paging: Paged,
    vehicle_id: str,
    kind: Annotated[Kind | None, Query(description="Of its cause.")] = None,
    verdict: Annotated[
        Verdict | None, Query(description="none: the vehicle's is not here.")
    ] = None,
) -> Response:
    """Revisions of a vehicle with their lineage, the newest first; refused ones, too."""
    require_vehicle(here, viewer, vehicle_id)
    listing = Listing(
        int,
        partial(pages.revisions, vehicle_id=vehicle_id, kind=kind, verdict=verdict),
        lambda row: row.number,
        lambda _db, rows: [views.revision_item(row, here.catalogue) for row in rows],
    )
    return answer(here.store, paging, listing)


@router.get("/revisions/{number}", responses=responses(404))
def get_revision(
    here: Here, viewer: Viewer, vehicle_id: str, number: int
) -> schemas.RevisionDetail:
    """One revision: parameters with their standard deviations, cause, verdict, signature."""
    with here.store.read() as db:
        known_vehicle(db, viewer, vehicle_id)
        row = known_revision(db, vehicle_id, number)
    return views.revision_detail(row, here.catalogue)


@router.get("/revisions/{number}/diff/{other}", responses=responses(404, 409))
def compare_revisions(
    here: Here, viewer: Viewer, vehicle_id: str, number: int, other: int
) -> history_schemas.RevisionDiff:
    """Two revisions: what changed, and whether it is more than chance; `number` comes before."""
    with here.store.read() as db:
        known_vehicle(db, viewer, vehicle_id)
        rows = [known_revision(db, vehicle_id, one) for one in (number, other)]
        before, after = sorted(rows, key=lambda row: row.number)
        fresh = revisions.has_fresh_start(db, vehicle_id, before.number, after.number)
    if before.bundle != after.bundle:
        raise ProblemError(409, "The two are for different bundles: their parameters differ.")
    manifest = here.catalogue.find(before.bundle)
    if manifest is None:
        raise not_found(f"bundle of revision {number} among this service's")
    return comparing.compared(before, after, manifest, here.catalogue, related=not fresh)


@router.get("/provisionals", response_model=Page[schemas.ProvisionalItem], responses=responses(404))
def list_provisionals(here: Here, viewer: Viewer, paging: Paged, vehicle_id: str) -> Response:
    """What a vehicle made for itself while it was cut off, beside the chain; the newest first."""
    require_vehicle(here, viewer, vehicle_id)

    def items(db: Session, rows: Sequence[ProvisionalRow]) -> list[schemas.ProvisionalItem]:
        return [views.provisional_item(r, revisions.made_of(db, r), here.catalogue) for r in rows]

    listing = Listing(
        tuple[float, int],
        partial(pages.provisionals, vehicle_id=vehicle_id),
        lambda row: (row.odometer, row.id or 0),
        items,
    )
    return answer(here.store, paging, listing)
