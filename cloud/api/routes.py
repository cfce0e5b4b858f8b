"""The routes under /api/v1 that read: vehicles, prediction, quarantine.

Must never write to the database.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api import schemas, views
from cloud.api.access import (
    Here,
    known_vehicle,
    required_standing,
)
from cloud.api.authority import Viewer
from cloud.api.moments import Moment
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.preconditions import etag_of
from cloud.api.problems import invalid, responses
from cloud.api.vehicle_query import Filtered, Sorted
from cloud.store import pages, revisions, vehicle_pages
from cloud.store.pages import QuarantineWanted
from cloud.store.vehicle_pages import Listed
from common.calibration import Settings, voltage_band, with_trip_spread
from common.manifest import Manifest
from common.trip_band import Z95

router = APIRouter(prefix="/api/v1")


@router.get(
    "/vehicles",
    response_model=Page[schemas.VehicleSummary],
    responses=responses(),
    tags=["vehicles"],
)
def list_vehicles(
    here: Here, viewer: Viewer, paging: Paged, asked: Filtered, sort: Sorted = "vehicle_id"
) -> Response:
    """Vehicles that all the filters let through, by `sort`."""
    now = here.clock()
    conditions = vehicle_pages.conditions(
        asked.wanted(), viewer.cohorts, here.catalogue.hashes, now
    )

    def rows(db: Session, after: vehicle_pages.Key | None, limit: int) -> list[Listed]:
        if after is not None and after[0] != sort:
            raise invalid("query.cursor", "not a cursor of this order")
        return vehicle_pages.page(db, after, limit, sort=sort, conditions=conditions)

    listing = Listing(
        vehicle_pages.Key,
        rows,
        partial(vehicle_pages.key, sort=sort),
        lambda _db, found: [
            schemas.VehicleSummary(**views.listed_fields(one, here.catalogue, now)) for one in found
        ],
    )
    return answer(here.store, paging, listing)


@router.get("/vehicles/{vehicle_id}", responses=responses(404), tags=["vehicles"])
def get_vehicle(
    here: Here, viewer: Viewer, vehicle_id: str, response: Response
) -> schemas.VehicleDetail:
    """One vehicle, and the features that a prediction for it needs."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        newest = revisions.newest_of(db, [vehicle_id]).get(vehicle_id)
        known = views.standing(db, vehicle, here.catalogue, here.clock())
    listed = Listed(vehicle, newest.number if newest else 0)
    detail = views.vehicle_detail(listed, known, here.catalogue, here.clock())
    ageless = detail.model_copy(update={"last_seen_age_s": None, "last_trip_age_s": None})
    response.headers["ETag"] = etag_of(ageless)
    return detail


@router.post(
    "/vehicles/{vehicle_id}/predict",
    responses=responses(404),
    tags=["prediction"],
)
def predict(
    here: Here, viewer: Viewer, vehicle_id: str, wanted: schemas.PredictionRequest
) -> schemas.Prediction:
    """The voltage that the vehicle's BMS would measure, with its 95 % band."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here, wanted.odometer)
    features = _feature_rows(wanted.rows, known.manifest)
    model = here.catalogue.model(known.bundle)
    of_trip = with_trip_spread(known.estimate, known.manifest)
    voltage, std = voltage_band(of_trip, features, model, known.manifest, Settings())
    rows = [
        schemas.PredictedRow(voltage_v=v, band95_lower_v=v - Z95 * s, band95_upper_v=v + Z95 * s)
        for v, s in zip(voltage.tolist(), std.tolist(), strict=True)
    ]
    return schemas.Prediction(
        **views.estimate_fields(vehicle, known), bundle=known.bundle, rows=rows
    )


@router.get(
    "/quarantine",
    response_model=Page[schemas.QuarantineItem],
    responses=responses(),
    tags=["operation"],
)
def list_quarantine(
    here: Here,
    viewer: Viewer,
    paging: Paged,
    vehicle_id: Annotated[
        str | None, Query(max_length=64, description="On whose topic it came.")
    ] = None,
    error: Annotated[
        str | None, Query(max_length=64, description="The type of the error, as it is listed.")
    ] = None,
    since: Annotated[Moment | None, Query(alias="from", description="Last came then.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Last came before.")] = None,
) -> Response:
    """Messages that were refused, with the reason; the latest first."""
    wanted = QuarantineWanted(
        vehicle_id,
        error,
        since.timestamp() if since else None,
        until.timestamp() if until else None,
    )
    listing = Listing(
        int,
        partial(pages.quarantined, cohorts=viewer.cohorts, wanted=wanted),
        lambda row: row.id or 0,
        lambda _db, rows: [views.quarantine_item(row) for row in rows],
    )
    return answer(here.store, paging, listing)


def _feature_rows(
    rows: Sequence[Mapping[str, float]], manifest: Manifest
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Rows [m, F] in manifest order. Raises ProblemError (422)."""
    for index, row in enumerate(rows):
        where = f"body.rows.{index}"
        if row.keys() != set(manifest.feature_names):
            needed = ", ".join(manifest.feature_names)
            raise invalid(where, f"needs exactly these features: {needed}")
        for feature in manifest.features:
            value = row[feature.name]
            if not (math.isfinite(value) and feature.minimum <= value <= feature.maximum):
                limits = f"[{feature.minimum:g}, {feature.maximum:g}] {feature.unit}"
                raise invalid(f"{where}.{feature.name}", f"outside {limits}")
    return np.array([[row[name] for name in manifest.feature_names] for row in rows])
