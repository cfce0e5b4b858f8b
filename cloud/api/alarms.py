"""Alarms: those that are on and those that were, and an operator's word on them.

Must never clear one: the service does, when the cause is gone.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col

from cloud.api.access import Here, known_vehicle
from cloud.api.authority import Operator, Viewer
from cloud.api.operator_schemas import AlarmAcknowledgement, AlarmItem
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import not_found, responses
from cloud.api.views import some_utc, utc
from cloud.api.writing import WRITE_STATUSES, Answer, OnceOnly, named
from cloud.store import alarms, events
from cloud.store.alert_tables import Alarm

router = APIRouter(prefix="/api/v1", tags=["alarms"])
State = Literal["active", "cleared"]
MOST_IDS = 2**31


@router.get("/alarms", response_model=Page[AlarmItem], responses=responses())
def list_alarms(
    here: Here,
    actor: Viewer,
    paging: Paged,
    vehicle_id: Annotated[str | None, Query(max_length=64)] = None,
    type: Annotated[str | None, Query(max_length=64)] = None,  # noqa: A002  # its name in the API
    state: State | None = None,
    *,
    acknowledged: bool | None = None,
) -> Response:
    """Alarms, the last raised first: each is active or cleared, and acknowledged or not."""
    wanted: dict[str, Any] = {"vehicle_id": vehicle_id, "type": type, "acknowledged": acknowledged}
    where = [col(getattr(Alarm, n)) == value for n, value in wanted.items() if value is not None]
    if state is not None:
        where.append(col(Alarm.active).is_(state == "active"))
    rows = partial(alarms.page, where=where, cohorts=actor.cohorts)
    items = lambda _db, found: [_item(row) for row in found]  # noqa: E731
    return answer(here.store, paging, Listing(tuple[float, int], rows, alarms.key_of, items))


@router.post(
    "/alarms/{alarm_id}/acknowledge",
    response_model=AlarmItem,
    responses=responses(*WRITE_STATUSES),
)
def acknowledge(
    here: Here, actor: Operator, once: OnceOnly, alarm_id: int, told: AlarmAcknowledgement
) -> Response:
    """Say that somebody knows of it, and who looks after it; again: the newest word counts."""

    def write(db: Session) -> Answer:
        row = db.get(Alarm, alarm_id) if 0 < alarm_id < MOST_IDS else None
        if row is None:
            raise not_found(f"alarm {alarm_id}")
        vehicle = known_vehicle(db, actor, row.vehicle_id)
        who, now = named(actor, told.by), here.clock()
        row.acknowledged, row.acknowledged_at, row.acknowledged_by = True, now, who
        row.assignee, row.comment = told.assignee or row.assignee, told.why
        detail = {"type": row.type, "why": told.why, "assignee": row.assignee}
        events.of_vehicle(db, "alarm.acknowledged", now, vehicle, actor=who, alarm=row.id, **detail)
        return Answer(_item(row))

    return once.write(actor, write)


def _item(row: Alarm) -> AlarmItem:
    own = row.model_dump(
        include={"id", "vehicle_id", "type", "severity", "reason", "acknowledged", "times"}
        | {"acknowledged_by", "assignee", "comment"}
    )
    return AlarmItem(
        **own,
        state="active" if row.active else "cleared",
        raised_at=some_utc(row.raised_at),
        cleared_at=utc(row.cleared_at),
        acknowledged_at=utc(row.acknowledged_at),
    )
