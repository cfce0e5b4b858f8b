"""What happened, the latest first: of vehicles, of people and of the service itself.

Must never wait for what has not happened: `/events/stream` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from cloud.api.access import Here
from cloud.api.audit import event_item
from cloud.api.authority import Viewer
from cloud.api.moments import Moment
from cloud.api.operator_schemas import EventItem
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import responses
from cloud.store import event_pages
from cloud.store.event_pages import Wanted

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/events", response_model=Page[EventItem], responses=responses())
def list_events(  # noqa: PLR0913  # each is a filter
    here: Here,
    viewer: Viewer,
    paging: Paged,
    kind: Annotated[
        list[str] | None,
        Query(max_length=20, description="A kind, or a family: `revision.`; may be repeated."),
    ] = None,
    vehicle_id: Annotated[str | None, Query(max_length=64)] = None,
    cohort: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to")] = None,
) -> Response:
    """What happened, the latest first; kept for 30 days, what people did for two years."""
    rows = partial(
        event_pages.happened,
        wanted=Wanted(kind, vehicle_id, cohort, viewer.cohorts),
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
    )
    listing = Listing(
        int, rows, lambda row: row.id or 0, lambda _db, found: list(map(event_item, found))
    )
    return answer(here.store, paging, listing)
