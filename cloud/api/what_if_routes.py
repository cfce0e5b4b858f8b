"""What if: scenarios for one vehicle, and for many. Must never write to the database."""

from __future__ import annotations

from fastapi import APIRouter
from sqlmodel import Session

from cloud.api import what_if
from cloud.api import what_if_schemas as schemas
from cloud.api.access import Context, Here, known_vehicle, required_standing
from cloud.api.authority import Actor, Viewer
from cloud.api.problems import ProblemError, invalid, responses
from cloud.api.views import Standing
from cloud.store import vehicle_pages
from cloud.store.tables import Vehicle
from common.errors import NoHealthError, QuestionError

router = APIRouter(prefix="/api/v1", tags=["prediction"])


@router.post("/vehicles/{vehicle_id}/what-if", responses=responses(404))
def what_if_vehicle(
    here: Here, viewer: Viewer, vehicle_id: str, wanted: schemas.WhatIf
) -> schemas.WhatIfAnswer:
    """What each scenario comes to: what is left, voltages along the trip, and the arrival."""
    with here.store.read() as db:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        known = required_standing(db, vehicle, here, wanted.odometer)
    try:
        return what_if.answer_of(
            vehicle, known, here.catalogue.model(known.bundle), wanted.scenarios
        )
    except QuestionError as error:
        raise invalid(f"body.{error.where}", error.problem) from error
    except NoHealthError as error:
        raise ProblemError(404, str(error)) from error


@router.post("/what-if", responses=responses())
def what_if_fleet(
    here: Here, viewer: Viewer, wanted: schemas.FleetWhatIf
) -> schemas.FleetWhatIfAnswer:
    """The same for many vehicles; where it cannot be said of one, its item says why."""
    with here.store.read() as db:
        ids, more = _ids(db, here, viewer, wanted)
        found = [_standing(db, here, viewer, vehicle_id) for vehicle_id in ids]
    items = [_item(here, one, wanted.scenarios) for one in found]
    return schemas.FleetWhatIfAnswer(items=items, more=more)


def _ids(
    db: Session, here: Context, viewer: Actor, wanted: schemas.FleetWhatIf
) -> tuple[list[str], bool]:
    if wanted.vehicle_ids is not None:
        return list(dict.fromkeys(wanted.vehicle_ids)), False
    which = vehicle_pages.Wanted(cohort=wanted.cohort)
    conditions = vehicle_pages.conditions(
        which, viewer.cohorts, here.catalogue.hashes, here.clock()
    )
    ids = vehicle_pages.ids(db, wanted.limit + 1, sort="vehicle_id", conditions=conditions)
    return ids[: wanted.limit], len(ids) > wanted.limit


_Found = tuple[str, Vehicle, Standing] | tuple[str, str]


def _standing(db: Session, here: Context, viewer: Actor, vehicle_id: str) -> _Found:
    try:
        vehicle = known_vehicle(db, viewer, vehicle_id)
        return vehicle_id, vehicle, required_standing(db, vehicle, here)
    except ProblemError as error:
        return vehicle_id, error.detail


def _item(
    here: Context, found: _Found, scenarios: list[schemas.Scenario]
) -> schemas.VehicleOutcomes:
    if len(found) == 2:  # noqa: PLR2004  # why it has no estimate
        return schemas.VehicleOutcomes(vehicle_id=found[0], answer=None, problem=found[1])
    vehicle_id, vehicle, known = found
    model = here.catalogue.model(known.bundle)
    try:
        answer = what_if.answer_of(vehicle, known, model, scenarios)
    except (QuestionError, NoHealthError) as error:
        return schemas.VehicleOutcomes(vehicle_id=vehicle_id, answer=None, problem=str(error))
    return schemas.VehicleOutcomes(vehicle_id=vehicle_id, answer=answer, problem=None)
