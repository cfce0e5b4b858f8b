"""What the command line writes and shows of API keys, on the database itself.

Must never print a secret: its caller does, once.
"""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from cloud.api.key_schemas import items
from cloud.commands.reports import show
from cloud.location import Location
from cloud.security import api_keys
from cloud.security.actors import Role
from cloud.store import api_keys as stored_keys
from cloud.store import events
from cloud.store.access_tables import ApiKey
from cloud.store.database import Reader, Store

_ALL: Final = 1_000_000
_COLUMNS: Final = ("id", "name", "role", "cohorts", "created_at", "created_by")
_TIMES: Final = ("expires_at", "last_used_at", "revoked_at")


@dataclass(frozen=True)
class Wanted:
    """A key to make; cohorts None: every one, `expires_at` None: never."""

    name: str
    role: Role
    cohorts: Sequence[str] | None
    expires_at: float | None


def create(database: Location, wanted: Wanted, now: float) -> tuple[str, str]:
    """The new key's id, and the key. Raises ApiKeyError, StoreError."""
    row, key = api_keys.make(
        wanted.name,
        wanted.role,
        wanted.cohorts,
        wanted.expires_at,
        by=_by(),
        now=now,
        random=secrets.token_bytes,
    )
    with _writing(database) as db:
        stored_keys.add(db, row)
        _note(db, "api_key.created", row, now)
    return row.id, key


def rotate(database: Location, key_id: str, overlap_s: float, now: float) -> str | None:
    """The key with its new secret; None: there is none. Raises ApiKeyError, StoreError."""
    with _writing(database) as db:
        row = stored_keys.find(db, key_id)
        if row is None:
            return None
        key = api_keys.rotate(row, overlap_s, now, secrets.token_bytes)
        _note(db, "api_key.rotated", row, now)
    return key


def revoke(database: Location, key_id: str, now: float) -> bool:
    """False: there is no such key. Raises StoreError."""
    with _writing(database) as db:
        row = stored_keys.find(db, key_id)
        if row is not None and row.revoked_at is None:
            api_keys.revoke(row, now)
            _note(db, "api_key.revoked", row, now)
    return row is not None


def list_keys(database: Location, *, as_json: bool) -> None:
    """Print every key. Raises StoreError."""
    reader = Reader(database)
    with reader.read() as db:
        found = stored_keys.page(db, None, _ALL)
    reader.close()
    rows = [item.model_dump(mode="json") for item in items(found)]
    show(rows, [*_COLUMNS, *_TIMES], as_json=as_json)


@contextmanager
def _writing(database: Location) -> Iterator[Session]:
    store = Store(database)
    try:
        with store.write() as db:
            yield db
    finally:
        store.close()


def _note(db: Session, kind: str, row: ApiKey, now: float) -> None:
    events.add(db, kind, now, actor=_by(), detail={"key": row.id, "name": row.name})


def _by() -> str:
    """Who may write the database may make keys: the audit says which of the machine's users."""
    return f"command line ({getpass.getuser()})"
