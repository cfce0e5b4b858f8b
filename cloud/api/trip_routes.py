"""The routes under a vehicle for its trips: the list, and the trace of one.

Must never write to the database.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api import history_schemas, schemas, tracing, views
from cloud.api.access import Context, Here, known_vehicle, require_vehicle
from cloud.api.authority import Viewer
from cloud.api.moments import Moment
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, not_found, responses
from cloud.errors import TraceGoneError
from cloud.store import pages, revisions
from cloud.store.pages import TripsWanted
from cloud.store.tables import Breach
from cloud.traces.reading import whole
from common.messages import message_id

router = APIRouter(prefix="/api/v1/vehicles/{vehicle_id}", tags=["trips"])


@router.get("/trips", response_model=Page[schemas.TripItem], responses=responses(404))
def list_trips(  # noqa: PLR0913  # each is a filter
    here: Here,
    viewer: Viewer,
    paging: Paged,
    vehicle_id: str,
    since: Annotated[Moment | None, Query(alias="from", description="Started then.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Started before.")] = None,
    odometer__gte: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    odometer__lt: Annotated[
        float | None, Query(allow_inf_nan=False, description="Of the trip's end.")
    ] = None,
    breach: Annotated[
        bool | None, Query(description="Only those that were one, or were not.")
    ] = None,
) -> Response:
    """Trips of a vehicle, the highest odometer first."""
    require_vehicle(here, viewer, vehicle_id)
    wanted = TripsWanted(
        since.timestamp() if since else None,
        until.timestamp() if until else None,
        odometer__gte,
        odometer__lt,
        breach,
    )
    listing = Listing(
        tuple[float, int],
        partial(pages.trips, vehicle_id=vehicle_id, wanted=wanted),
        lambda row: (row.odometer_end, row.id or 0),
        lambda _db, rows: [views.trip_item(row, here.catalogue) for row in rows],
    )
    return answer(here.store, paging, listing)


@router.get("/trips/{trip_id}/trace", responses=responses(404, 410))
def get_trace(
    here: Here, viewer: Viewer, vehicle_id: str, trip_id: str
) -> history_schemas.TripTrace:
    """What was measured on a trip that was a breach, and predicted before and after it."""
    with here.store.read() as db:
        known_vehicle(db, viewer, vehicle_id)
        message = message_id(vehicle_id, trip_id, "breach")
        found = revisions.breaches_of(db, vehicle_id, [message])
        if not found:
            raise not_found(f"trace of trip {trip_id[:80]!r} of vehicle {vehicle_id!r}")
        breach = _whole(here, db, found[0])
        running = revisions.by_number(db, vehicle_id, found[0].revision)
        made = revisions.caused_by(db, vehicle_id, message)
    trace = tracing.trace_of(breach, running, made, here.catalogue)
    if trace is None:
        raise not_found(f"bundle of trip {trip_id[:80]!r} among this service's, or its trace")
    return trace


def _whole(here: Context, db: Session, breach: Breach) -> Breach:
    """With the trace, from wherever it is. Raises ProblemError (410): it is kept no longer."""
    try:
        return whole(db, here.archive, breach)
    except TraceGoneError as error:
        raise ProblemError(410, str(error)) from error
