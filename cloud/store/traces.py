"""Which traces may leave the database, and in which file each of them is.

Must never let go of the trace of a breach that is not settled, or that something under way needs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import bindparam, exists, func, update
from sqlmodel import Session, and_, col, or_, select

from cloud.errors import TraceGoneError
from cloud.store import locks
from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.tables import Breach, RevisionRow
from cloud.store.trace_tables import TraceFile

_HELD: Final = or_(
    exists().where(
        col(RecalibrationOrder.vehicle_id) == Breach.vehicle_id,
        col(RecalibrationOrder.done_at).is_(None),
    ),
    exists().where(col(Pin.vehicle_id) == Breach.vehicle_id, col(Pin.done_at).is_(None)),
    exists().where(
        col(RevisionRow.vehicle_id) == Breach.vehicle_id, col(RevisionRow.approval) == "pending"
    ),
)
_SETTLED: Final = and_(col(Breach.archived_in).is_(None), col(Breach.state) != "pending")
_DUE: Final = (
    select(Breach)
    .where(_SETTLED, ~_HELD, col(Breach.received_at) < bindparam("before"))
    .order_by(col(Breach.received_at), col(Breach.id))
    .limit(bindparam("limit"))
)
_RELEASABLE: Final = select(Breach).where(
    col(Breach.message_id).in_(bindparam("messages", expanding=True)), _SETTLED, ~_HELD
)
_RELEASE: Final = (
    update(Breach)
    .where(col(Breach.id) == bindparam("row"))
    .values(trace=b"", archived_in=bindparam("name"))
)


def due(db: Session, before: float, limit: int) -> Sequence[Breach]:
    """Settled breaches received before then whose trace is here and may leave, oldest first."""
    return db.exec(_DUE, params={"before": before, "limit": limit}).all()


def announce(db: Session, file: TraceFile) -> None:
    """A file that is about to be written; the same one again is the same."""
    locks.add_missing(db, TraceFile, [file.model_dump()])


def unreleased(db: Session) -> TraceFile | None:
    """A file that was announced, and then perhaps not written, or not all released."""
    query = select(TraceFile).where(col(TraceFile.released_at).is_(None))
    return db.exec(query.order_by(col(TraceFile.made_at)).limit(1)).first()


def forget(db: Session, name: str) -> bool:
    """An announced file was not written, or badly; whether no row names it."""
    file = _locked(db, name)
    if file is not None and file.released == 0:
        db.delete(file)
    return file is None or file.released == 0


def releasable(db: Session, name: str, keys: Collection[tuple[str, str]]) -> list[Breach]:
    """Those of these breaches, by vehicle and message, that may go to the file; held till the end.

    None when the file was forgotten; those that something needs meanwhile are left out.
    """
    locks.vehicles(db, {vehicle_id for vehicle_id, _ in keys})
    if _locked(db, name) is None:
        return []
    found = db.exec(_RELEASABLE, params={"messages": [message_id for _, message_id in keys]})
    wanted = set(keys)
    return [breach for breach in found if (breach.vehicle_id, breach.message_id) in wanted]


def release(db: Session, name: str, breaches: Sequence[Breach]) -> None:
    """Let these go: their traces are in the file."""
    file = _locked(db, name)
    if file is None or not breaches:
        return
    rows = [{"row": breach.id, "name": name} for breach in breaches]
    db.connection().execute(_RELEASE, rows)
    file.released += len(rows)


def end_release(db: Session, name: str, now: float) -> int:
    """Every row of the file has been asked; how many name it."""
    file = _locked(db, name)
    if file is None:
        return 0
    file.released_at = now
    return file.released


def files_before(db: Session, month: str, limit: int) -> Sequence[TraceFile]:
    """Files of earlier months that are still kept, the oldest first."""
    query = select(TraceFile).where(
        TraceFile.month < month,
        col(TraceFile.removed_at).is_(None),
        col(TraceFile.released_at).is_not(None),
    )
    return db.exec(query.order_by(col(TraceFile.month), col(TraceFile.name)).limit(limit)).all()


def mark_removed(db: Session, names: Sequence[str], now: float) -> None:
    """These files are not there any more."""
    gone = update(TraceFile).where(col(TraceFile.name).in_(names)).values(removed_at=now)
    db.connection().execute(gone)


def removed_among(db: Session, breaches: Sequence[Breach]) -> Mapping[str, float]:
    """Which of the files that these breaches name are kept no longer, and since when."""
    names = {breach.archived_in for breach in breaches if breach.archived_in is not None}
    if not names:
        return {}
    query = select(TraceFile).where(
        col(TraceFile.name).in_(names), col(TraceFile.removed_at).is_not(None)
    )
    return {file.name: file.removed_at or 0.0 for file in db.exec(query)}


def gone(breach: Breach, removed_at: float) -> TraceGoneError:
    """What is said of a trace whose file is kept no longer."""
    until = datetime.fromtimestamp(removed_at, UTC).date().isoformat()
    return TraceGoneError(breach.vehicle_id, breach.trip_id, until)


@dataclass(frozen=True)
class Month:
    """What a month's files hold."""

    month: str
    files: int
    breaches: int
    trace_bytes: int
    file_bytes: int
    is_kept: bool


def months(db: Session) -> list[Month]:
    """Of the archive, the oldest first."""
    is_kept = col(TraceFile.removed_at).is_(None)
    sizes = (TraceFile.breaches, TraceFile.trace_bytes, TraceFile.file_bytes)
    rows = db.connection().execute(
        select(TraceFile.month)
        .add_columns(func.count(), *(func.sum(size) for size in sizes), is_kept)
        .group_by(col(TraceFile.month), is_kept)
        .order_by(col(TraceFile.month))
    )
    return [
        Month(month, files, int(breaches), int(traces), int(size), bool(kept))
        for month, files, breaches, traces, size, kept in rows
    ]


def in_database(db: Session) -> tuple[int, int]:
    """How many traces are here, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(func.length(Breach.trace)), 0))
    count, size = db.exec(query.where(col(Breach.archived_in).is_(None))).one()
    return int(count), int(size)


def _locked(db: Session, name: str) -> TraceFile | None:
    return db.exec(select(TraceFile).where(TraceFile.name == name).with_for_update()).first()
