"""What became of a revision, one note after the other: pushed, applied, refused, confirmed.

Append-only. A push comes as often as the broker took it, a verdict as often as the vehicle gave
another. Must never decide what a verdict means: `cloud.store.verdicts` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, text
from sqlmodel import Session, col, select

from cloud.store.audit_tables import RevisionNote
from cloud.store.tables import RevisionRow
from common.messages import Acknowledgement

_PUSHED = text(
    "INSERT INTO revision_note (vehicle_id, number, at, kind, detail) "
    "SELECT vehicle_id, number, :now, 'pushed', :detail FROM revision WHERE id IN :rows"
).bindparams(bindparam("rows", expanding=True))


def add_pushed(db: Session, ids: Sequence[int], now: float) -> None:
    """The broker has taken the revisions of these rows."""
    if ids:
        db.connection().execute(_PUSHED, {"rows": list(ids), "now": now, "detail": b"{}"})


def add_verdict(db: Session, row: RevisionRow, ack: Acknowledgement, now: float) -> None:
    """The vehicle has said something of a revision; the same again is not noted."""
    kind = "fell_back" if ack.reason == "worse_on_next_trip" else ack.verdict
    known = select(RevisionNote.id).where(
        RevisionNote.vehicle_id == row.vehicle_id,
        RevisionNote.number == row.number,
        RevisionNote.kind == kind,
    )
    if db.exec(known.limit(1)).first() is not None:
        return
    detail = {
        "message_id": ack.message_id,
        "reason": ack.reason,
        "detail": ack.detail,
        "error_before_v": ack.error_before_v,
        "error_after_v": ack.error_after_v,
        "decided_at": ack.decided_at,
    }
    note = RevisionNote(
        vehicle_id=row.vehicle_id,
        number=row.number,
        at=now,
        kind=kind,
        detail=msgspec.json.encode(detail),
    )
    db.add(note)
    db.flush()


def of_revision(db: Session, vehicle_id: str, number: int) -> Sequence[RevisionNote]:
    """Every note of a revision, the oldest first."""
    query = select(RevisionNote).where(
        RevisionNote.vehicle_id == vehicle_id, RevisionNote.number == number
    )
    return db.exec(query.order_by(col(RevisionNote.id))).all()
