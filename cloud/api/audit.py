"""Who did what, when and why: the events of people, page by page.

Must never show what the service did by itself: that is what `/events/stream` is for.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.api.access import Here
from cloud.api.authority import Viewer
from cloud.api.moments import Moment
from cloud.api.operator_schemas import EventItem
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import responses
from cloud.api.views import some_utc
from cloud.store import event_pages
from cloud.store.event_pages import Wanted
from cloud.store.event_tables import Event

router = APIRouter(prefix="/api/v1", tags=["audit"])


class AuditQuestion(BaseModel):
    """Which events of people."""

    model_config = ConfigDict(populate_by_name=True)

    actor: str | None = Field(default=None, max_length=128)
    kind: list[str] | None = Field(
        default=None, max_length=20, description="A kind, or a family: `order.`; may be repeated."
    )
    vehicle_id: str | None = Field(default=None, max_length=64)
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = Field(default=None, alias="to")


@router.get("/audit", response_model=Page[EventItem], responses=responses())
def list_audit(
    here: Here, actor: Viewer, paging: Paged, question: Annotated[AuditQuestion, Query()]
) -> Response:
    """What people did, the latest first; kept for two years."""
    rows = partial(
        event_pages.audited,
        wanted=Wanted(question.kind, question.vehicle_id, cohorts=actor.cohorts),
        actor=question.actor,
        since=question.since.timestamp() if question.since else None,
        until=question.until.timestamp() if question.until else None,
    )
    listing = Listing(
        int, rows, lambda row: row.id or 0, lambda _db, found: list(map(event_item, found))
    )
    return answer(here.store, paging, listing)


def event_item(row: Event) -> EventItem:
    """An event as clients see it."""
    return EventItem(
        id=str(row.id),
        at=some_utc(row.at),
        detail=msgspec.json.decode(row.detail),
        **row.model_dump(include={"kind", "vehicle_id", "cohort", "actor"}),
    )
