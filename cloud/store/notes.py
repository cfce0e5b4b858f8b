"""What became of a revision, one note after the other: pushed, applied, refused, confirmed.

Append-only. A push comes as often as the broker took it, a verdict as often as the vehicle gave
another. Must never decide what a verdict means: `cloud.store.verdicts` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Float, LargeBinary, Table, bindparam, insert, literal
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from cloud.store.audit_tables import RevisionNote
from cloud.store.bulk import Insert
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
_TABLE: Final[Table] = RevisionNote.__table__  # type: ignore[attr-defined]
_SAID: Final = Insert(
    _TABLE,
    ["vehicle_id", "number", "at", "kind", "detail"],
    # One after the other by the index, however small the table was when this was planned.
    unless="(SELECT 1 FROM revision_note AS n WHERE n.vehicle_id = r.vehicle_id "
    "AND n.number = r.number AND n.kind = r.kind LIMIT 1) IS NOT NULL",
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
        "vehicle_id": row.vehicle_id,
        "number": row.number,
        "at": now,
        "kind": "fell_back" if ack.reason == FELL_BACK else ack.verdict,
        "detail": msgspec.json.encode(detail),
    }


def add_verdicts(db: Session, said: Sequence[Note]) -> None:
    """Vehicles have said these; the same again is not noted."""
    new: dict[tuple[object, ...], Note] = {}
    for one in said:
        new.setdefault((one["vehicle_id"], one["number"], one["kind"]), one)
    _SAID.execute(db, list(new.values()))


def of_revision(db: Session, vehicle_id: str, number: int) -> Sequence[RevisionNote]:
    """Every note of a revision, the oldest first."""
    query = select(RevisionNote).where(
        RevisionNote.vehicle_id == vehicle_id, RevisionNote.number == number
    )
    return db.exec(query.order_by(col(RevisionNote.id))).all()
