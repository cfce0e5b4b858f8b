"""What happens, as it happens: server-sent events that resume where a client was cut off.

Must never show an event of a cohort that is not the caller's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from cloud.api.audit import event_item
from cloud.api.authority import Viewer
from cloud.api.event_hub import EventHub, Said
from cloud.api.problems import ProblemError, invalid, responses
from cloud.store.event_pages import Wanted

router = APIRouter(prefix="/api/v1", tags=["events"])

HEARTBEAT_S: Final = 15.0
MOST_FOLLOWERS: Final = 1000
_ID: Final = re.compile("[0-9]{1,18}")
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
Kinds = Annotated[
    list[str] | None,
    Query(max_length=20, description="A kind, or a family: `revision.`; may be repeated."),
]
LastId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)]
After = Annotated[str | None, Query(max_length=64, description="As `Last-Event-ID`.")]
_EVENT_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events, each with its `id`; `gap` and `dropped` are events of their own.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={**responses(503), **_EVENT_STREAM},
)
async def stream_events(
    request: Request,
    actor: Viewer,
    vehicle_id: Annotated[str | None, Query(max_length=64)] = None,
    cohort: Annotated[str | None, Query(max_length=64)] = None,
    kind: Kinds = None,
    after: After = None,
    last_event_id: LastId = None,
) -> StreamingResponse:
    """What happens from now on, or behind the last event that the client had.

    A client that reads too slowly gets the event `dropped` and the end; `gap` says that events
    behind its last one are kept no longer.
    """
    hub = _hub(request)
    if hub.followers >= MOST_FOLLOWERS:
        raise ProblemError(503, f"{MOST_FOLLOWERS} clients follow the events already.")
    since = _id_of(last_event_id or after)
    wanted = Wanted(kind, vehicle_id, cohort, actor.cohorts)
    said = hub.follow(wanted, since, HEARTBEAT_S)
    return StreamingResponse(_lines(said), media_type="text/event-stream", headers=_HEADERS)


def _hub(request: Request) -> EventHub:
    """The one of this process: made when somebody first follows, in the loop that serves."""
    state = request.app.state
    if not hasattr(state, "events"):
        state.events = EventHub(state.context.store)
    hub: EventHub = state.events
    return hub


async def _lines(said: AsyncIterator[Said]) -> AsyncIterator[bytes]:
    yield format_sse_event(comment="open", retry=3000)
    async for one in said:
        if one is None:
            yield format_sse_event(comment="alive")
        elif isinstance(one, str):
            yield format_sse_event(event=one, data_str="{}")
        else:
            item = event_item(one)
            yield format_sse_event(data_str=item.model_dump_json(), id=item.id)


def _id_of(given: str | None) -> int | None:
    """Raises ProblemError (422)."""
    if given is None:
        return None
    if _ID.fullmatch(given) is None:
        raise invalid("header.Last-Event-ID", "no id of an event of this service")
    return int(given)
