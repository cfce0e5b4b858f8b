"""The routes under a vehicle for what is derived from its estimate: health, forecast, range, trips.

Must never write to the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query

from cloud.api import derived_schemas as schemas
from cloud.api import derived_views as views
from cloud.api.access import Here, known_vehicle, required_standing
from cloud.api.authority import Viewer
from cloud.api.problems import ProblemError, invalid, responses
from cloud.mileage import MOST_TRIPS
from cloud.store import pages
from common.errors import NoHealthError, QuestionError

router = APIRouter(prefix="/api/v1/vehicles/{vehicle_id}")


@router.get("/health", responses=responses(404), tags=["health"])
def get_health(
    here: Here,
    viewer: Viewer,
    vehicle_id: str,
    question: Annotated[schemas.HealthQuestion, Query()],
) -> schemas.Health:
    """State of health with its 95 % band, at the vehicle's last odometer or a later one."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here, question.odometer)
    return views.health_of(vehicle, known, here.catalogue.model(known.bundle))


@router.get(
    "/forecast",
    responses=responses(404),
    tags=["health"],
)
def get_forecast(
    here: Here,
    viewer: Viewer,
    vehicle_id: str,
    question: Annotated[schemas.ForecastQuestion, Query()],
) -> schemas.Forecast:
    """Odometer and date at which state of health falls to a threshold, with 95 % intervals."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here)
        trips = pages.trips(db, None, MOST_TRIPS, vehicle_id=vehicle_id)
    model = here.catalogue.model(known.bundle)
    with _asked("query"):
        return views.forecast_of(vehicle, known, model, trips, here.clock(), question)


@router.post("/range", responses=responses(404), tags=["prediction"])
def get_range(
    here: Here, viewer: Viewer, vehicle_id: str, wanted: schemas.RangeRequest
) -> schemas.Range:
    """What is left until the cut-off from here under given conditions, with its 95 % interval."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here, wanted.odometer)
    model = here.catalogue.model(known.bundle)
    with _asked("body"):
        return views.range_of(vehicle, known, model, wanted.conditions, wanted.consumption_per_km)


@router.post("/planned-trip", responses=responses(404), tags=["prediction"])
def plan(
    here: Here, viewer: Viewer, vehicle_id: str, wanted: schemas.PlannedTripRequest
) -> schemas.PlannedTrip:
    """The voltage band along a planned trip, and whether the battery lasts to its end."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here, wanted.odometer)
    with _asked("body"):
        return views.planned_trip_of(
            vehicle, known, here.catalogue.model(known.bundle), wanted.rows
        )


@contextmanager
def _asked(source: str) -> Iterator[None]:
    """A question that cannot be answered is a problem, with the place in the request."""
    try:
        yield
    except QuestionError as error:
        raise invalid(f"{source}.{error.where}", error.problem) from error
    except NoHealthError as error:
        raise ProblemError(404, str(error)) from error
