"""A vehicle's settings and the cohorts: who is in which, and moving many at once.

Must never move a vehicle out of, or into, a cohort that is not the actor's.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlmodel import Session

from cloud.api import operator_schemas as schemas
from cloud.api.access import Here, known_vehicle
from cloud.api.authority import Actor, Operator, Viewer
from cloud.api.paging import Page
from cloud.api.preconditions import IfMatch, check_match, etag_of
from cloud.api.problems import ProblemError, not_found, responses
from cloud.api.writing import WRITE_STATUSES, Answer, OnceOnly, named
from cloud.store import cohorts, events, revisions
from cloud.store.tables import Vehicle

router = APIRouter(prefix="/api/v1", tags=["cohorts"])
CohortName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


@router.get("/vehicles/{vehicle_id}/settings", responses=responses(404))
def get_settings(
    here: Here, actor: Viewer, vehicle_id: str, response: Response
) -> schemas.VehicleSettings:
    """What operators say of a vehicle: its cohort, label and note."""
    with here.store.read() as db:
        shown = _settings(known_vehicle(db, actor, vehicle_id))
    response.headers["ETag"] = etag_of(shown)
    return shown


@router.put(
    "/vehicles/{vehicle_id}/settings",
    response_model=schemas.VehicleSettings,
    responses=responses(*WRITE_STATUSES),
)
def put_settings(
    here: Here,
    actor: Operator,
    once: OnceOnly,
    vehicle_id: str,
    told: schemas.VehicleSettingsChange,
    if_match: IfMatch = None,
) -> Response:
    """Put a vehicle into a cohort, and give it a label and a note."""

    def change(db: Session) -> Answer:
        vehicle = known_vehicle(db, actor, vehicle_id)
        require_own(actor, told.cohort)
        check_match(if_match, etag_of(_settings(vehicle)))
        who, now = named(actor, told.by), here.clock()
        cohorts.move(db, vehicle, told.cohort, who, told.why, now)
        if (vehicle.label, vehicle.note) != (told.label, told.note):
            vehicle.label, vehicle.note = told.label, told.note
            detail = {"label": told.label, "why": told.why}
            events.of_vehicle(db, "vehicle.described", now, vehicle, actor=who, **detail)
        shown = _settings(vehicle)
        return Answer(shown, headers={"ETag": etag_of(shown)})

    return once.write(actor, change)


@router.get("/cohorts", responses=responses())
def list_cohorts(here: Here, actor: Viewer) -> Page[schemas.CohortItem]:
    """Every cohort that has a vehicle, with its size."""
    with here.store.read() as db:
        found = cohorts.sizes(db, actor.cohorts)
    items = [
        schemas.CohortItem(name=one.name, vehicles=one.vehicles, online=one.online) for one in found
    ]
    return Page(items=items, next=None)


@router.post(
    "/cohorts/{cohort}/vehicles",
    response_model=schemas.CohortAssigned,
    responses=responses(*WRITE_STATUSES),
)
def assign(
    here: Here, actor: Operator, once: OnceOnly, cohort: CohortName, told: schemas.CohortAssignment
) -> Response:
    """Put up to 1000 vehicles into a cohort, all of them or, where one is unknown, none."""
    require_own(actor, cohort)

    def change(db: Session) -> Answer:
        wanted = dict.fromkeys(told.vehicle_ids)
        found = revisions.vehicles(db, wanted)
        unknown = [v for v in wanted if v not in found or not actor.may_see(found[v].cohort)]
        if unknown:
            raise not_found(f"vehicle {', '.join(repr(name) for name in unknown[:10])}")
        who, now = named(actor, told.by), here.clock()
        moved = [cohorts.move(db, found[v], cohort, who, told.why, now) for v in wanted]
        changed = sum(moved)
        return Answer(
            schemas.CohortAssigned(cohort=cohort, assigned=changed, already=len(moved) - changed)
        )

    return once.write(actor, change)


def _settings(vehicle: Vehicle) -> schemas.VehicleSettings:
    fields = schemas.VehicleSettings.model_fields
    return schemas.VehicleSettings(**vehicle.model_dump(include=set(fields)))


def require_own(actor: Actor, cohort: str) -> None:
    """Raises ProblemError (403) unless the cohort is the actor's."""
    if not actor.may_see(cohort):
        raise ProblemError(403, f"The cohort {cohort!r} is not among {actor.name}'s.")
