"""The fleet's health, page by page, from what its last revisions and forecasts have stored.

Must never compute a forecast: the service does so in its own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api.access import Here
from cloud.api.authority import Viewer
from cloud.api.maintenance_schemas import DateSpan, OdometerSpan, VehicleHealth
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import invalid, responses
from cloud.api.vehicle_query import Filtered, Sorted
from cloud.api.views import listed_fields, utc
from cloud.bundles import Catalogue
from cloud.store import maintenance, vehicle_pages
from cloud.store.maintenance_tables import Outlook
from cloud.store.vehicle_pages import Listed
from common.trip_band import Z95

router = APIRouter(prefix="/api/v1", tags=["health"])


@router.get("/health", response_model=Page[VehicleHealth], responses=responses())
def list_health(
    here: Here, viewer: Viewer, paging: Paged, asked: Filtered, sort: Sorted = "soh"
) -> Response:
    """State of health of every vehicle, and where and when it falls to its cohort's limit."""
    now = here.clock()
    conditions = vehicle_pages.conditions(
        asked.wanted(), viewer.cohorts, here.catalogue.hashes, now
    )

    def rows(db: Session, after: vehicle_pages.Key | None, limit: int) -> list[Listed]:
        if after is not None and after[0] != sort:
            raise invalid("query.cursor", "not a cursor of this order")
        return vehicle_pages.page(db, after, limit, sort=sort, conditions=conditions)

    def items(db: Session, found: Sequence[Listed]) -> list[VehicleHealth]:
        known = maintenance.outlooks(db, [one.vehicle.vehicle_id for one in found])
        return [_item(one, known.get(one.vehicle.vehicle_id), here.catalogue, now) for one in found]

    key = partial(vehicle_pages.key, sort=sort)
    return answer(here.store, paging, Listing(vehicle_pages.Key, rows, key, items))


def _item(
    listed: Listed, outlook: Outlook | None, catalogue: Catalogue, now: float
) -> VehicleHealth:
    vehicle, fields = listed.vehicle, listed_fields(listed, catalogue, now)
    half = None if vehicle.soh_std is None else Z95 * vehicle.soh_std
    soh = vehicle.soh
    own = ("vehicle_id", "cohort", "state", "state_reason", "odometer", "odometer_unit", "drift")
    return VehicleHealth(
        **{name: fields[name] for name in own},
        state_of_health=soh,
        state_of_health_std=vehicle.soh_std,
        band95_lower=None if soh is None or half is None else soh - half,
        band95_upper=None if soh is None or half is None else soh + half,
        **_forecast(outlook),
    )


def _forecast(outlook: Outlook | None) -> dict[str, Any]:
    if outlook is None:
        return dict.fromkeys(
            ("health_limit", "limit_odometer", "limit_at", "forecast_at", "forecast_problem")
        )
    is_known = outlook.problem is None
    odometer = OdometerSpan(
        value=outlook.odometer, low=outlook.odometer_low, high=outlook.odometer_high
    )
    at = DateSpan(value=utc(outlook.at), low=utc(outlook.at_low), high=utc(outlook.at_high))
    return {
        "health_limit": outlook.health_limit,
        "limit_odometer": odometer if is_known else None,
        "limit_at": at if is_known else None,
        "forecast_at": utc(outlook.made_at),
        "forecast_problem": outlook.problem,
    }
