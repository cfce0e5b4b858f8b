"""Staged roll-outs: begin one, see how far it is, hold it, let it go on, end it, bring back.

Must never order a release: the worker does, stage by stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api.access import Context, Here
from cloud.api.authority import Actor, Admin, Operator, Viewer, require_every_cohort
from cloud.api.cohorts import CohortName, require_own
from cloud.api.operator_schemas import Verdict
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, invalid, not_found, responses
from cloud.api.rollout_schemas import (
    RolloutDetail,
    RolloutItem,
    RolloutRules,
    RolloutStage,
    RolloutStart,
)
from cloud.api.views import some_utc
from cloud.api.writing import WRITE_STATUSES, Answer, Once, OnceOnly, named
from cloud.errors import RolloutError
from cloud.rollout import telling
from cloud.rollout.conductor import plan_of, state_of, tally_of
from cloud.rollout.deciding import Verb
from cloud.rollout.plan import Plan, rises
from cloud.rollout.telling import Word
from cloud.store import bundle_registry, rollouts
from cloud.store.rollout_tables import Rollout

router = APIRouter(prefix="/api/v1/rollouts", tags=["roll-outs"])


@router.get("", response_model=Page[RolloutItem], responses=responses())
def list_rollouts(here: Here, actor: Viewer, paging: Paged) -> Response:
    """Roll-outs whose cohorts are all yours to see, the one begun last first."""
    rows = partial(_visible, actor)
    listing = Listing(rollouts.Key, rows, _key, lambda _db, found: list(map(_item, found)))
    return answer(here.store, paging, listing)


@router.get("/{name}", responses=responses(404))
def get_rollout(here: Here, actor: Viewer, name: CohortName) -> RolloutDetail:
    """One roll-out: its stages, what the vehicles have answered, errors with both bundles."""
    with here.store.read() as db:
        return _detail(db, _known(db, actor, name))


@router.post(
    "", status_code=201, response_model=RolloutDetail, responses=responses(*WRITE_STATUSES)
)
def start_rollout(here: Here, actor: Admin, once: OnceOnly, told: RolloutStart) -> Response:
    """Begin a roll-out; `dry_run` answers how many vehicles each stage has, and begins nothing."""
    for cohort in told.cohorts:
        require_own(actor, cohort)
    if not told.cohorts:
        require_every_cohort(actor)
    if not rises(told.stages_percent):
        raise invalid("body.stages_percent", "each stage must be larger than the one before")
    plan = msgspec.convert(told.model_dump(include=set(Plan.__struct_fields__)), Plan, strict=False)
    planned = _planned(here, told, plan)

    def write(db: Session) -> Answer:
        word = Word(named(actor, told.by), told.why, here.clock())
        try:
            row = telling.start(db, here.catalogue, told.name, told.bundle, plan, planned, word)
        except RolloutError as error:
            raise ProblemError(409, str(error)) from error
        db.flush()
        return Answer(_detail(db, row), 201, {"Location": f"{router.prefix}/{row.name}"})

    return once.write(actor, write)


@router.post("/{name}/pause", response_model=RolloutDetail, responses=responses(*WRITE_STATUSES))
def pause_rollout(
    here: Here, actor: Operator, once: OnceOnly, name: CohortName, told: Verdict
) -> Response:
    """Order for no further vehicle until it is resumed."""
    return _told(here, actor, once, name, told, "pause")


@router.post("/{name}/resume", response_model=RolloutDetail, responses=responses(*WRITE_STATUSES))
def resume_rollout(
    here: Here, actor: Operator, once: OnceOnly, name: CohortName, told: Verdict
) -> Response:
    """Go on where it was paused or has halted; what has come so far halts it no more."""
    return _told(here, actor, once, name, told, "resume")


@router.post("/{name}/cancel", response_model=RolloutDetail, responses=responses(*WRITE_STATUSES))
def cancel_rollout(
    here: Here, actor: Operator, once: OnceOnly, name: CohortName, told: Verdict
) -> Response:
    """End it; vehicles that it was ordered for keep the new bundle."""
    return _told(here, actor, once, name, told, "cancel")


@router.post(
    "/{name}/roll-back",
    status_code=202,
    response_model=RolloutDetail,
    responses=responses(*WRITE_STATUSES),
)
def roll_back_rollout(
    here: Here, actor: Operator, once: OnceOnly, name: CohortName, told: Verdict
) -> Response:
    """End it, and order each vehicle's old bundle again where the new one was not refused."""
    return _told(here, actor, once, name, told, "roll_back", 202)


def _told(
    here: Context,
    actor: Actor,
    once: Once,
    name: str,
    told: Verdict,
    verb: Verb,
    status: int = 200,
) -> Response:
    def write(db: Session) -> Answer:
        rollouts.locked(db)
        row = _known(db, actor, name)
        word = Word(named(actor, told.by), told.why, here.clock())
        try:
            telling.tell(db, row, verb, word)
        except RolloutError as error:
            raise ProblemError(409, str(error)) from error
        return Answer(_detail(db, row), status)

    return once.write(actor, write)


def _planned(here: Context, told: RolloutStart, plan: Plan) -> list[int]:
    with here.store.read() as db:
        is_known = here.catalogue.get(told.bundle) is not None
        if not is_known and not bundle_registry.is_kept(db, told.bundle):
            raise not_found(f"bundle {told.bundle!r}")
        return telling.sizes(db, told.name, plan, told.bundle)


def _known(db: Session, actor: Actor, name: str) -> Rollout:
    row = db.get(Rollout, name, populate_existing=True)
    if row is None or not _may_see(actor, row):
        raise not_found(f"roll-out {name!r}")
    return row


def _may_see(actor: Actor, row: Rollout) -> bool:
    cohorts = plan_of(row).cohorts
    return all(map(actor.may_see, cohorts)) if cohorts else actor.cohorts is None


def _visible(
    actor: Actor, db: Session, after: rollouts.Key | None, limit: int
) -> Sequence[Rollout]:
    found: list[Rollout] = []
    while len(found) < limit:
        page = rollouts.newest(db, after, limit)
        found += [row for row in page if _may_see(actor, row)]
        if len(page) < limit:
            break
        after = _key(page[-1])
    return found[:limit]


def _key(row: Rollout) -> rollouts.Key:
    return row.started_at, row.name


def _item(row: Rollout) -> RolloutItem:
    plan = plan_of(row)
    return RolloutItem(
        name=row.name,
        bundle=row.bundle,
        state=state_of(row),
        stage=row.stage + 1,
        stages_percent=plan.stages_percent,
        cohorts=plan.cohorts,
        from_bundle=plan.from_bundle,
        soak_s=plan.soak_s,
        rules=RolloutRules(**msgspec.structs.asdict(plan.rules)),
        halt=row.halt,  # type: ignore[arg-type]  # checked on making
        why=row.why,
        changed_by=row.actor,
        changed_at=some_utc(row.state_at),
        started_by=row.started_by,
        started_at=some_utc(row.started_at),
        started_why=row.started_why,
    )


def _detail(db: Session, row: Rollout) -> RolloutDetail:
    plan, found, tally = plan_of(row), rollouts.answers(db, row.name), tally_of(db, row)
    planned = msgspec.json.decode(row.planned, type=list[int])
    said = [
        {state: n for (stage, state), n in found.items() if stage == number}
        for number in range(len(planned))
    ]
    told_back, back = rollouts.sent_back(db, row.name)
    return RolloutDetail(
        **_item(row).model_dump(),
        stages=[
            RolloutStage(percent=percent, planned=size, ordered=sum(a.values()), answers=a)
            for percent, size, a in zip(plan.stages_percent, planned, said, strict=True)
        ],
        trips=tally.trips,
        error_v=tally.error_v,
        old_trips=tally.old_trips,
        old_error_v=tally.old_error_v,
        told_back=told_back,
        back=back,
    )
