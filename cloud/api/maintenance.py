"""Maintenance: what is due, a vehicle's history, and an operator's word on a task.

Must never change a task that is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api import maintenance_schemas as schemas
from cloud.api.access import LARGEST_NUMBER, Context, Here, known_vehicle, require_vehicle
from cloud.api.authority import Actor, Operator, Viewer
from cloud.api.calendar_file import MEDIA, calendar
from cloud.api.maintenance_schemas import TaskItem
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, not_found, responses
from cloud.api.views import some_utc, utc
from cloud.api.writing import WRITE_STATUSES, Answer, Once, OnceOnly, named
from cloud.mileage import DAY_S
from cloud.store import locks, maintenance
from cloud.store.maintenance import OPEN, Wanted
from cloud.store.maintenance_tables import MaintenanceTask
from cloud.store.tables import Vehicle

router = APIRouter(prefix="/api/v1", tags=["maintenance"])

MOST_IN_CALENDAR: Final = 1000
Within = Annotated[float | None, Query(gt=0, le=36525, description="Due in so many days.")]
Cohort = Annotated[str | None, Query(min_length=1, max_length=64)]


@router.get("/maintenance", response_model=Page[TaskItem], responses=responses())
def list_maintenance(  # each is a filter
    here: Here,
    actor: Viewer,
    paging: Paged,
    within_days: Within = None,
    cohort: Cohort = None,
    state: Annotated[
        schemas.TaskState | None, Query(description="[default: proposed or scheduled]")
    ] = None,
    kind: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
) -> Response:
    """Tasks of all vehicles, the earliest due first."""
    wanted = Wanted((state,) if state else OPEN, kind, cohort, _until(here, within_days))
    rows = partial(maintenance.page, cohorts=actor.cohorts, wanted=wanted)
    listing = Listing(
        tuple[float, int],
        rows,
        lambda row: (row.due_at, row.id or 0),
        lambda _db, found: [_item(row) for row in found],
    )
    return answer(here.store, paging, listing)


@router.get(
    "/maintenance.ics",
    response_class=Response,
    responses={**responses(), 200: {"content": {MEDIA: {"schema": {"type": "string"}}}}},
)
def get_calendar(
    here: Here, actor: Viewer, within_days: Within = None, cohort: Cohort = None
) -> Response:
    """Open tasks as a calendar (RFC 5545), at most 1000: an all-day event each, by its date."""
    wanted = Wanted(OPEN, None, cohort, _until(here, within_days))
    with here.store.read() as db:
        tasks = maintenance.page(db, None, MOST_IN_CALENDAR, cohorts=actor.cohorts, wanted=wanted)
    return Response(calendar(tasks), media_type=MEDIA)


@router.get(
    "/vehicles/{vehicle_id}/maintenance", response_model=Page[TaskItem], responses=responses(404)
)
def list_vehicle_maintenance(here: Here, actor: Viewer, paging: Paged, vehicle_id: str) -> Response:
    """Every task that a vehicle has or had, the newest first."""
    require_vehicle(here, actor, vehicle_id)
    rows = partial(maintenance.history, vehicle_id=vehicle_id)
    items = lambda _db, found: [_item(row) for row in found]  # noqa: E731
    return answer(here.store, paging, Listing(int, rows, lambda row: row.id or 0, items))


@router.post(
    "/vehicles/{vehicle_id}/maintenance",
    status_code=201,
    response_model=TaskItem,
    responses=responses(*WRITE_STATUSES),
)
def add_task(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.NewTask
) -> Response:
    """Schedule something of any kind; 409 where a task of that kind is open."""

    def write(db: Session) -> Answer:
        known_vehicle(db, actor, vehicle_id)
        vehicle = locks.vehicles(db, [vehicle_id])[vehicle_id]
        before = maintenance.open_task(db, vehicle_id, told.kind)
        if before is not None:
            raise ProblemError(409, f"Task {before.id} of that kind is {before.state} already.")
        now = here.clock()
        task = MaintenanceTask(vehicle_id=vehicle_id, kind=told.kind, made_at=now, **_planned(told))
        _change(db, vehicle, task, "scheduled", named(actor, told.by), now)
        return Answer(_item(task), 201)

    return once.write(actor, write)


@router.post(
    "/maintenance/{task_id}/schedule", response_model=TaskItem, responses=responses(*WRITE_STATUSES)
)
def schedule_task(
    here: Here, actor: Operator, once: OnceOnly, task_id: int, told: schemas.Planned
) -> Response:
    """Set the date of an open task; the service moves it no more."""
    return _decided(here, once, actor, task_id, told.by, "scheduled", _planned(told))


@router.post(
    "/maintenance/{task_id}/done", response_model=TaskItem, responses=responses(*WRITE_STATUSES)
)
def finish_task(
    here: Here, actor: Operator, once: OnceOnly, task_id: int, told: schemas.TaskVerdict
) -> Response:
    """Say that it was done. Of a new battery tell the service, too: `battery-replaced`."""
    to = {"state": "done", "reason": told.why}
    return _decided(here, once, actor, task_id, told.by, "done", to)


@router.post(
    "/maintenance/{task_id}/dismiss", response_model=TaskItem, responses=responses(*WRITE_STATUSES)
)
def dismiss_task(
    here: Here, actor: Operator, once: OnceOnly, task_id: int, told: schemas.TaskVerdict
) -> Response:
    """Say that it is not needed; it is proposed again only if it comes clearly earlier."""
    to = {"state": "dismissed", "reason": told.why}
    return _decided(here, once, actor, task_id, told.by, "dismissed", to)


def _decided(
    here: Context,
    once: Once,
    actor: Actor,
    task_id: int,
    by: str | None,
    event: str,
    to: Mapping[str, Any],
) -> Response:
    def write(db: Session) -> Answer:
        found = db.get(MaintenanceTask, task_id) if 0 < task_id < LARGEST_NUMBER else None
        if found is None:
            raise not_found(f"maintenance task {task_id}")
        known_vehicle(db, actor, found.vehicle_id)
        vehicle = locks.vehicles(db, [found.vehicle_id])[found.vehicle_id]
        db.refresh(found)  # another process may have changed it meanwhile
        if found.state not in OPEN:
            raise ProblemError(409, f"Task {task_id} is {found.state}: it is closed.")
        _change(db, vehicle, found, event, named(actor, by), here.clock(), **to)
        return Answer(_item(found))

    return once.write(actor, write)


def _change(
    db: Session,
    vehicle: Vehicle,
    task: MaintenanceTask,
    event: str,
    actor: str,
    now: float,
    **to: Any,
) -> None:
    maintenance.change(db, vehicle, task, event, now=now, actor=actor, **to)


def _planned(told: schemas.Planned) -> dict[str, Any]:
    """A person's date has no interval."""
    return {
        "state": "scheduled",
        "due_at": told.due_at.timestamp(),
        "due_at_low": None,
        "due_at_high": None,
        "due_odometer": told.due_odometer,
        "due_odometer_low": None,
        "due_odometer_high": None,
        "reason": told.why,
    }


def _until(here: Context, within_days: float | None) -> float | None:
    return None if within_days is None else here.clock() + within_days * DAY_S


def _item(row: MaintenanceTask) -> TaskItem:
    return TaskItem(
        **row.model_dump(include={"id", "vehicle_id", "kind", "state", "reason", "revision"}),
        due=schemas.DateSpan(
            value=utc(row.due_at), low=utc(row.due_at_low), high=utc(row.due_at_high)
        ),
        due_odometer=schemas.OdometerSpan(
            value=row.due_odometer, low=row.due_odometer_low, high=row.due_odometer_high
        ),
        changed_by=row.actor,
        made_at=some_utc(row.made_at),
        changed_at=some_utc(row.changed_at),
    )
