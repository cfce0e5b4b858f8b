"""What became of a revision, one note after the other: pushed, applied, refused, confirmed.

Append-only. A push comes as often as the broker took it, a verdict as often as the vehicle gave
another. Must never decide what a verdict means: `cloud.store.verdicts` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Float, LargeBinary, bindparam, insert, literal, text
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from cloud.store.audit_tables import RevisionNote
from cloud.store.judged import Judged
from cloud.store.membership import among
from cloud.store.tables import RevisionRow
from cloud.store.verdicts import FELL_BACK
from common.messages import Acknowledgement

_PUSHED = insert(RevisionNote).from_select(
    ["vehicle_id", "number", "at", "kind", "detail"],
    columns(
        col(RevisionRow.vehicle_id),
        col(RevisionRow.number),
        bindparam("now", type_=Float()),
        literal("pushed"),
        bindparam("detail", type_=LargeBinary()),
    ).where(among(RevisionRow.id, "rows", numbers=True)),
)
_SAID = text(
    "INSERT INTO revision_note (vehicle_id, number, at, kind, detail) "
    "SELECT CAST(:vehicle AS VARCHAR), CAST(:number AS BIGINT), CAST(:now AS DOUBLE PRECISION), "
    "CAST(:kind AS VARCHAR), :detail WHERE NOT EXISTS (SELECT 1 FROM revision_note "
    "WHERE vehicle_id = :vehicle AND number = :number AND kind = :kind)"
)

Note = Mapping[str, object]
"""A row to be written, its vehicle locked."""


def add_pushed(db: Session, ids: Sequence[int], now: float) -> None:
    """The broker has taken the revisions of these rows."""
    if ids:
        db.connection().execute(_PUSHED, {"rows": list(ids), "now": now, "detail": b"{}"})


def of_verdict(row: Judged, ack: Acknowledgement, now: float) -> Note:
    """What a vehicle has said of a revision, to be added."""
    detail = {
        "message_id": ack.message_id,
        "reason": ack.reason,
        "detail": ack.detail,
        "error_before_v": ack.error_before_v,
        "error_after_v": ack.error_after_v,
        "decided_at": ack.decided_at,
    }
    return {
        "vehicle": row.vehicle_id,
        "number": row.number,
        "now": now,
        "kind": "fell_back" if ack.reason == FELL_BACK else ack.verdict,
        "detail": msgspec.json.encode(detail),
    }


def add_verdicts(db: Session, said: Sequence[Note]) -> None:
    """Vehicles have said these; the same again is not noted."""
    if said:
        db.connection().execute(_SAID, said)


def of_revision(db: Session, vehicle_id: str, number: int) -> Sequence[RevisionNote]:
    """Every note of a revision, the oldest first."""
    query = select(RevisionNote).where(
        RevisionNote.vehicle_id == vehicle_id, RevisionNote.number == number
    )
    return db.exec(query.order_by(col(RevisionNote.id))).all()
