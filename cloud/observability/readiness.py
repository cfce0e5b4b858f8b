"""What `/health/ready` asks of the database: does it answer, and with the tables of this software.

Must never write, and never raise for what it is there to tell.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlmodel import Session

from cloud.errors import StoreUnavailableError
from cloud.store import migrations as steps


class Readable(Protocol):
    """A store to read from."""

    def read(self) -> AbstractContextManager[Session]: ...  # noqa: D102


def database(store: Readable) -> str | None:
    """None, or why it does not answer."""
    try:
        _version(store)
    except StoreUnavailableError as error:
        return str(error)
    return None


def migrations(store: Readable) -> str | None:
    """None, or that another version of the software has brought the tables to its own."""
    try:
        found = _version(store)
    except StoreUnavailableError:
        return "the database does not answer"
    if found == steps.HEAD:
        return None
    return f"the tables have version {found}, this software knows {steps.HEAD}: update it"


def _version(store: Readable) -> str | None:
    with store.read() as db:
        return steps.version_of(db.connection())
