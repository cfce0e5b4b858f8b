"""The policies of cohorts: what holds, every version before it, and the next one.

Must never change a version, nor take one from somebody who has not seen the one that holds.
"""

from __future__ import annotations

from functools import partial

import msgspec
from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api.access import Here
from cloud.api.authority import Actor, Admin, Viewer
from cloud.api.cohorts import CohortName, require_own
from cloud.api.operator_schemas import PolicyChange, PolicyItem, PolicySettings
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.preconditions import IfMatch, check_match, etag_of
from cloud.api.problems import not_found, responses
from cloud.api.views import some_utc
from cloud.api.writing import WRITE_STATUSES, Answer, OnceOnly, named
from cloud.policy import DEFAULT, Policy
from cloud.store import policies
from cloud.store.operator_tables import PolicyRow

router = APIRouter(prefix="/api/v1", tags=["policies"])


@router.get("/policies", responses=responses())
def list_policies(here: Here, actor: Viewer) -> Page[PolicyItem]:
    """The policy of every cohort that has one; the others have version 0."""
    with here.store.read() as db:
        cohorts = sorted(name for name in policies.holding(db) if actor.may_see(name))
        items = [_item(name, policies.newest(db, name)) for name in cohorts]
    return Page(items=items, next=None)


@router.get("/policies/{cohort}", responses=responses(404))
def get_policy(here: Here, actor: Viewer, cohort: CohortName, response: Response) -> PolicyItem:
    """The policy that holds for a cohort."""
    _require_seen(actor, cohort)
    with here.store.read() as db:
        shown = _item(cohort, policies.newest(db, cohort))
    response.headers["ETag"] = etag_of(shown)
    return shown


@router.get(
    "/policies/{cohort}/versions", response_model=Page[PolicyItem], responses=responses(404)
)
def list_policy_versions(here: Here, actor: Viewer, paging: Paged, cohort: CohortName) -> Response:
    """Every version, the newest first: who made it, when and why."""
    _require_seen(actor, cohort)
    rows = partial(_versions, cohort)
    items = lambda _db, found: [_item(cohort, row) for row in found]  # noqa: E731
    return answer(here.store, paging, Listing(int, rows, lambda row: row.version, items))


@router.put("/policies/{cohort}", response_model=PolicyItem, responses=responses(*WRITE_STATUSES))
def put_policy(
    here: Here,
    actor: Admin,
    once: OnceOnly,
    cohort: CohortName,
    told: PolicyChange,
    if_match: IfMatch = None,
) -> Response:
    """Make the next version of a cohort's policy; `If-Match` is needed (`*`: whatever holds)."""

    def change(db: Session) -> Answer:
        require_own(actor, cohort)
        check_match(if_match, etag_of(_item(cohort, policies.newest(db, cohort))), required=True)
        wanted = msgspec.convert(told.policy.model_dump(), Policy)
        who = named(actor, told.by)
        row = policies.add(db, cohort, wanted, actor=who, why=told.why, now=here.clock())
        shown = _item(cohort, row)
        return Answer(shown, headers={"ETag": etag_of(shown)})

    return once.write(actor, change)


def _versions(cohort: str, db: Session, before: int | None, limit: int) -> list[PolicyRow]:
    return list(policies.versions(db, cohort, before, limit))


def _item(cohort: str, row: PolicyRow | None) -> PolicyItem:
    policy = policies.read(row) if row else DEFAULT
    return PolicyItem(
        cohort=cohort,
        version=row.version if row else 0,
        policy=PolicySettings(**msgspec.structs.asdict(policy)),
        changed_by=row.actor if row else None,
        changed_at=some_utc(row.at) if row else None,
        why=row.why if row else None,
    )


def _require_seen(actor: Actor, cohort: str) -> None:
    if not actor.may_see(cohort):
        raise not_found(f"cohort {cohort!r}")
