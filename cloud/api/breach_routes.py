"""The breaches of a vehicle: what became of each. Must never write to the database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api.access import Here, require_vehicle
from cloud.api.authority import Viewer
from cloud.api.history_schemas import BreachItem, BreachState
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import responses
from cloud.api.views import some_utc, utc
from cloud.bundles import Catalogue
from cloud.store import breach_pages
from cloud.store.tables import Breach

router = APIRouter(prefix="/api/v1/vehicles/{vehicle_id}", tags=["trips"])


@router.get("/breaches", response_model=Page[BreachItem], responses=responses(404))
def list_breaches(
    here: Here,
    viewer: Viewer,
    paging: Paged,
    vehicle_id: str,
    state: Annotated[BreachState | None, Query(description="Only those in it.")] = None,
) -> Response:
    """Breaches of a vehicle and what became of each, the highest odometer first."""
    require_vehicle(here, viewer, vehicle_id)

    def items(db: Session, rows: Sequence[Breach]) -> list[BreachItem]:
        brought = breach_pages.brought(db, rows)
        return [_item(row, brought.get(row.message_id), here.catalogue) for row in rows]

    rows = partial(breach_pages.page, vehicle_id=vehicle_id, state=state)
    return answer(here.store, paging, Listing(tuple[float, int], rows, breach_pages.key, items))


def _item(row: Breach, brought: int | None, catalogue: Catalogue) -> BreachItem:
    manifest = catalogue.find(row.bundle)
    own = {"message_id", "trip_id", "bundle", "revision", "provisional", "odometer"}
    own |= {"error_v", "threshold_v", "state", "reason"}
    return BreachItem(
        **row.model_dump(include=own),
        odometer_unit=manifest.odometer_unit if manifest else None,
        brought=brought,
        received_at=some_utc(row.received_at),
        decided_at=utc(row.decided_at),
        told_at=utc(row.heard_at),
    )
