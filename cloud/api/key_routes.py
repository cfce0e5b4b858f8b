"""API keys over the API: who sees every cohort as an admin makes, lists, rotates and revokes them.

Must never show a secret but in the one answer that makes it, nor let an answer with one be kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Response
from sqlmodel import Session

from cloud.api.access import Here
from cloud.api.authority import Actor, Admin, require_every_cohort
from cloud.api.key_schemas import (
    ApiKeyItem,
    ApiKeyRequest,
    ApiKeyWithSecret,
    Rotation,
    fields,
    items,
)
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, invalid, not_found, responses
from cloud.errors import ApiKeyError
from cloud.security import api_keys
from cloud.store import api_keys as stored_keys
from cloud.store import events
from cloud.store.access_tables import ApiKey
from cloud.store.database import Store

router = APIRouter(prefix="/api/v1/api-keys", tags=["access"])


@router.get("", response_model=Page[ApiKeyItem], responses=responses())
def list_api_keys(here: Here, actor: Admin, paging: Paged) -> Response:
    """API keys by id, the revoked ones too."""
    require_every_cohort(actor)
    listing = Listing(str, stored_keys.page, lambda row: row.id, lambda _db, rows: items(rows))
    return answer(here.store, paging, listing)


@router.post("", status_code=201, responses=responses())
def create_api_key(
    here: Here, actor: Admin, response: Response, wanted: ApiKeyRequest
) -> ApiKeyWithSecret:
    """Make a key. Its secret is in this answer, and nowhere else."""
    require_every_cohort(actor)
    now = here.clock()
    ends = None if wanted.expires_at is None else wanted.expires_at.timestamp()
    try:
        row, key = api_keys.make(
            wanted.name, wanted.role, wanted.cohorts, ends, actor.name, now, secrets.token_bytes
        )
    except ApiKeyError as error:
        raise invalid("body", error.problem) from error
    with here.store.write() as db:
        stored_keys.add(db, row)
        _note(db, "api_key.created", row, actor, now)
    return _shown(response, row, key)


@router.post("/{key_id}/rotate", responses=responses(404, 409))
def rotate_api_key(
    here: Here, actor: Admin, response: Response, key_id: str, told: Rotation
) -> ApiKeyWithSecret:
    """Give a key another secret; the old one works for a while beside it."""
    require_every_cohort(actor)
    now = here.clock()
    with _changed(here.store, key_id) as (db, row):
        key = api_keys.rotate(row, told.overlap_h * 3600.0, now, secrets.token_bytes)
        _note(db, "api_key.rotated", row, actor, now)
    return _shown(response, row, key)


@router.delete("/{key_id}", responses=responses(404, 409))
def revoke_api_key(here: Here, actor: Admin, key_id: str) -> ApiKeyItem:
    """Let a key open nothing any more, within five seconds; again changes nothing."""
    require_every_cohort(actor)
    now = here.clock()
    with _changed(here.store, key_id) as (db, row):
        if row.revoked_at is None:
            api_keys.revoke(row, now)
            _note(db, "api_key.revoked", row, actor, now)
    return ApiKeyItem(**fields(row))


@contextmanager
def _changed(store: Store, key_id: str) -> Iterator[tuple[Session, ApiKey]]:
    """Raises ProblemError (404, 409)."""
    with store.write() as db:
        row = stored_keys.find(db, key_id)
        if row is None:
            raise not_found(f"API key {key_id!r}"[:80])
        try:
            yield db, row
        except ApiKeyError as error:
            raise ProblemError(409, str(error)) from error


def _note(db: Session, kind: str, row: ApiKey, actor: Actor, now: float) -> None:
    events.add(db, kind, now, actor=actor.name, detail={"key": row.id, "name": row.name})


def _shown(response: Response, row: ApiKey, key: str) -> ApiKeyWithSecret:
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyWithSecret(**fields(row), key=key)
