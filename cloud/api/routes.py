"""The routes under /api/v1 that read: vehicles, trips, revisions, prediction, quarantine.

Must never write to the database.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from fastapi import APIRouter, Request, Response
from sqlmodel import Session

from cloud.api import schemas, views
from cloud.api.access import Context, Here, known_vehicle, required_standing
from cloud.api.paging import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Page,
    cut,
    decode_cursor,
    link_next,
    only,
)
from cloud.api.problems import MEANINGS, invalid, not_found, responses
from cloud.store import pages, revisions
from cloud.store.tables import Vehicle
from common.calibration import Settings, voltage_band, with_trip_spread
from common.manifest import Manifest
from common.trip_band import Z95

router = APIRouter(prefix="/api/v1")
_PAGED = [only("limit", "cursor")]
_BARE = [only()]


@router.get("/vehicles", dependencies=_PAGED, responses=responses(), tags=["vehicles"])
def list_vehicles(
    here: Here,
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[schemas.VehicleSummary]:
    """All vehicles, by id."""
    with here.store.read() as db:
        rows = pages.vehicles(db, decode_cursor(cursor, str), limit + 1)
        rows, following = cut(rows, limit, lambda row: row.vehicle_id)
        numbers = pages.newest_numbers(db, [row.vehicle_id for row in rows])
        items = [
            schemas.VehicleSummary(
                **views.vehicle_fields(
                    row, _standing(db, row, here), numbers.get(row.vehicle_id, 0)
                )
            )
            for row in rows
        ]
    link_next(request, response, following)
    return Page(items=items, next=following)


@router.get(
    "/vehicles/{vehicle_id}", dependencies=_BARE, responses=responses(404), tags=["vehicles"]
)
def get_vehicle(here: Here, vehicle_id: str) -> schemas.VehicleDetail:
    """One vehicle, and the features that a prediction for it needs."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, vehicle_id)
        newest = pages.newest_numbers(db, [vehicle_id]).get(vehicle_id, 0)
        return views.vehicle_detail(vehicle, _standing(db, vehicle, here), newest)


@router.get(
    "/vehicles/{vehicle_id}/trips", dependencies=_PAGED, responses=responses(404), tags=["trips"]
)
def list_trips(
    here: Here,
    vehicle_id: str,
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[schemas.TripItem]:
    """Trips of a vehicle, the highest odometer first."""
    with here.store.read() as db:
        known_vehicle(db, vehicle_id)
        after = decode_cursor(cursor, tuple[float, int])
        rows = pages.trips(db, vehicle_id, after, limit + 1)
    rows, following = cut(rows, limit, lambda row: (row.odometer_end, row.id))
    link_next(request, response, following)
    return Page(items=[views.trip_item(row, here.catalogue) for row in rows], next=following)


@router.get(
    "/vehicles/{vehicle_id}/revisions",
    dependencies=_PAGED,
    responses=responses(404),
    tags=["revisions"],
)
def list_revisions(
    here: Here,
    vehicle_id: str,
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[schemas.RevisionItem]:
    """Revisions of a vehicle with their lineage, the newest first; refused ones, too."""
    with here.store.read() as db:
        known_vehicle(db, vehicle_id)
        rows = pages.revisions(db, vehicle_id, decode_cursor(cursor, int), limit + 1)
    rows, following = cut(rows, limit, lambda row: row.number)
    link_next(request, response, following)
    return Page(items=[views.revision_item(row, here.catalogue) for row in rows], next=following)


@router.get(
    "/vehicles/{vehicle_id}/revisions/{number}",
    dependencies=_BARE,
    responses=responses(404),
    tags=["revisions"],
)
def get_revision(here: Here, vehicle_id: str, number: int) -> schemas.RevisionDetail:
    """One revision: parameters with their standard deviations, cause, verdict, signature."""
    with here.store.read() as db:
        known_vehicle(db, vehicle_id)
        in_range = 0 < number < 2**63
        row = revisions.by_number(db, vehicle_id, number) if in_range else None
    if row is None:
        raise not_found(f"revision {number} of vehicle {vehicle_id!r}")
    return views.revision_detail(row, here.catalogue)


@router.get(
    "/vehicles/{vehicle_id}/provisionals",
    dependencies=_PAGED,
    responses=responses(404),
    tags=["revisions"],
)
def list_provisionals(
    here: Here,
    vehicle_id: str,
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[schemas.ProvisionalItem]:
    """What a vehicle made for itself while it was cut off, beside the chain; the newest first."""
    with here.store.read() as db:
        known_vehicle(db, vehicle_id)
        after = decode_cursor(cursor, tuple[float, int])
        rows = pages.provisionals(db, vehicle_id, after, limit + 1)
        items = [views.provisional_item(r, revisions.made_of(db, r), here.catalogue) for r in rows]
    rows, following = cut(rows, limit, lambda row: (row.odometer, row.id))
    link_next(request, response, following)
    return Page(items=items[:limit], next=following)


@router.post(
    "/vehicles/{vehicle_id}/predict",
    dependencies=_BARE,
    responses=responses(404),
    tags=["prediction"],
)
def predict(here: Here, vehicle_id: str, wanted: schemas.PredictionRequest) -> schemas.Prediction:
    """The voltage that the vehicle's BMS would measure, with its 95 % band."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, vehicle_id)
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


@router.get("/quarantine", dependencies=_PAGED, responses=responses(), tags=["operation"])
def list_quarantine(
    here: Here,
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[schemas.QuarantineItem]:
    """Messages that were refused, with the reason; the latest first."""
    with here.store.read() as db:
        rows = pages.quarantined(db, decode_cursor(cursor, int), limit + 1)
    rows, following = cut(rows, limit, lambda row: row.id)
    link_next(request, response, following)
    return Page(items=[views.quarantine_item(row) for row in rows], next=following)


@router.get("/problems/{status}", dependencies=_BARE, responses=responses(404), tags=["operation"])
def explain_problem(status: int) -> dict[str, str]:
    """What the `type` of a problem means."""
    if status not in MEANINGS:
        raise not_found(f"problem {status}")
    return {"status": str(status), "meaning": MEANINGS[status]}


def _standing(db: Session, vehicle: Vehicle, here: Context) -> views.Standing | None:
    return views.standing(db, vehicle, here.catalogue, here.clock())


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
