"""Parameters over the odometer or time: of one vehicle, or of those that a list of vehicles shows.

Must never write to the database. What is answered is encoded once, without a model for each point.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from sqlmodel import Session

from cloud.api import history_schemas as schemas
from cloud.api.access import Here, known_vehicle
from cloud.api.authority import Viewer
from cloud.api.moments import Moment
from cloud.api.problems import not_found, responses
from cloud.api.vehicle_query import Filtered, Sorted
from cloud.api.views import some_utc
from cloud.bundles import Catalogue
from cloud.store import histories, vehicle_pages
from cloud.store.histories import Between
from common.trip_band import Z95

router = APIRouter(prefix="/api/v1", tags=["parameters"])

MOST_POINTS: Final = 10_000
MOST_VEHICLES: Final = 500

Points = Annotated[
    int, Query(ge=1, le=MOST_POINTS, description="At most so many; thinned by number if need be.")
]


def _between(
    since: Annotated[Moment | None, Query(alias="from", description="Made then or later.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Made before.")] = None,
    odometer__gte: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    odometer__lt: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Between:
    return Between(
        since.timestamp() if since else None,
        until.timestamp() if until else None,
        odometer__gte,
        odometer__lt,
    )


Ranged = Annotated[Between, Depends(_between)]


@router.get(
    "/vehicles/{vehicle_id}/parameters/{name}",
    response_model=schemas.ParameterHistory,
    responses=responses(404),
)
def get_parameter_history(
    here: Here, viewer: Viewer, vehicle_id: str, name: str, between: Ranged, points: Points = 1000
) -> Response:
    """A parameter of one vehicle, as each of its revisions has it, with its 95 % band."""
    with here.store.read() as db:
        known_vehicle(db, viewer, vehicle_id)
        indices = _indices(here.catalogue, name)
        return _history(db, here.catalogue, name, indices, [vehicle_id], between, points)


@router.get("/parameters/{name}", response_model=schemas.ParameterHistory, responses=responses(404))
def get_fleet_parameter_history(  # noqa: PLR0913  # each is part of the question
    here: Here,
    viewer: Viewer,
    name: str,
    asked: Filtered,
    sort: Sorted = "vehicle_id",
    vehicles: Annotated[
        int, Query(ge=1, le=MOST_VEHICLES, description="Of the list, the first so many.")
    ] = 50,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to")] = None,
    points: Points = 1000,
) -> Response:
    """A parameter of the vehicles that `/vehicles` shows first under the same filters and order."""
    indices = _indices(here.catalogue, name)
    between = Between(since.timestamp() if since else None, until.timestamp() if until else None)
    wanted = vehicle_pages.conditions(
        asked.wanted(), viewer.cohorts, here.catalogue.hashes, here.clock()
    )
    with here.store.read() as db:
        ids = vehicle_pages.ids(db, vehicles, sort=sort, conditions=wanted)
        return _history(db, here.catalogue, name, indices, ids, between, points)


def _indices(catalogue: Catalogue, name: str) -> dict[str, int]:
    """Where the parameter stands, by bundle. Raises ProblemError (404)."""
    manifests = {sha256: catalogue.manifest(sha256) for sha256 in catalogue.hashes}
    found = {
        sha256: index
        for sha256, manifest in manifests.items()
        for index, parameter in enumerate(manifest.parameters)
        if parameter.name == name
    }
    if not found:
        raise not_found(f"parameter {name[:80]!r} in a bundle of this service")
    return found


def _history(  # all of it is the question
    db: Session,
    catalogue: Catalogue,
    name: str,
    indices: dict[str, int],
    vehicle_ids: Collection[str],
    between: Between,
    points: int,
) -> Response:
    picked = histories.stride(db, vehicle_ids, between, points)
    rows = histories.rows(db, vehicle_ids, between, picked, list(indices))
    bundle = rows[0].bundle if rows else next(iter(indices))
    manifest = catalogue.manifest(bundle)
    content = {
        "parameter": name,
        "unit": manifest.parameters[indices[bundle]].unit,
        "odometer_unit": manifest.odometer_unit,
        "vehicles": len(vehicle_ids),
        "every": picked.every,
        "points": [_point(row, indices[row.bundle]) for row in rows[:points]],
    }
    return Response(msgspec.json.encode(content), media_type="application/json")


class _Point(msgspec.Struct, gc=False):
    """A `ParameterPoint`: a thousand of them as models would take longer than to read them."""

    vehicle_id: str
    revision: int
    odometer: float
    created_at: datetime
    value: float
    std: float
    band95_lower: float
    band95_upper: float
    verdict: str | None


def _point(row: histories.Row, index: int) -> _Point:
    value, std = histories.value_and_std(row.content, index)
    half = Z95 * std
    return _Point(
        row.vehicle_id,
        row.number,
        row.odometer,
        some_utc(row.created_at),
        value,
        std,
        value - half,
        value + half,
        row.verdict,
    )
