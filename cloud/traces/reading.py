"""A breach's trace, wherever it is: the only way to it for whoever may meet an old breach.

What is pending has its trace in its row. Must never write.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from sqlmodel import Session

from cloud.errors import TraceFileError
from cloud.store import traces
from cloud.store.tables import Breach
from cloud.store.trace_tables import TraceFile
from cloud.traces.archive import Archive


class Files(Protocol):
    """The archive, or what was read of it beforehand."""

    def trace(self, name: str, vehicle_id: str, message_id: str) -> bytes:
        """As `Archive.trace`."""


class ReadBefore:
    """An archive of which some traces were read before a transaction began.

    A bucket may take its time, and whoever locks a vehicle must not wait for it.
    """

    def __init__(self, archive: Archive, breaches: Sequence[Breach]) -> None:
        """Raises TraceArchiveError. What cannot be read is for the transaction to meet."""
        self._archive = archive
        self._known: dict[tuple[str, str, str], bytes] = {}
        with suppress(TraceFileError):
            for breach in breaches:
                if breach.archived_in is not None:
                    key = breach.archived_in, breach.vehicle_id, breach.message_id
                    self._known[key] = archive.trace(*key)

    def trace(self, name: str, vehicle_id: str, message_id: str) -> bytes:
        """As `Archive.trace`."""
        known = self._known.get((name, vehicle_id, message_id))
        return self._archive.trace(name, vehicle_id, message_id) if known is None else known


def trace_of(db: Session, archive: Files | None, breach: Breach) -> bytes:
    """The JSON as its vehicle sent it.

    Raises TraceGoneError (it was kept until then), TraceFileError (the archive's file is damaged,
    missing, or there is no archive), TraceArchiveError (it does not answer).
    """
    if breach.archived_in is None:
        return breach.trace
    file = db.get(TraceFile, breach.archived_in)
    if file is not None and file.removed_at is not None:
        raise traces.gone(breach, file.removed_at)
    if archive is None:
        raise TraceFileError(breach.archived_in, "this service has no [traces] archive")
    return archive.trace(breach.archived_in, breach.vehicle_id, breach.message_id)


def whole(db: Session, archive: Files | None, breach: Breach) -> Breach:
    """The breach with its trace; a copy that no session writes back. Raises as `trace_of`."""
    if breach.archived_in is None:
        return breach
    return Breach(**breach.model_dump() | {"trace": trace_of(db, archive, breach)})
