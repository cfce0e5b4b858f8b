"""Everything that is known of one revision, as one document: for the API and the command line.

Must never leave out what speaks against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlmodel import Session

from cloud.api.provenance_schemas import Approval, Innovation, Message, Note, RevisionAudit
from cloud.audit import inputs
from cloud.store import notes, revisions
from cloud.store.audit_tables import RevisionNote
from cloud.store.tables import Breach, RevisionRow
from common.errors import MalformedMessageError
from common.revision import Revision, decode_revision


def of_revision(db: Session, row: RevisionRow) -> RevisionAudit:
    """Raises ContractError: its content cannot be read."""
    revision = decode_revision(row.content)
    kept = b"" if row.inputs is None else row.inputs
    found = inputs.hash_of(kept) if kept else ""
    return RevisionAudit(
        vehicle_id=row.vehicle_id,
        number=row.number,
        hash=row.hash,
        parent_hash=revision.parent_hash,
        key_id=row.key_id,
        signature=row.signature,
        kind=row.kind,
        base=revision.base,
        bundle=revision.bundle,
        prior_version=revision.prior_version,
        code_version=revision.code_version,
        created_at=revision.created_at,
        approved=_approval(row, revision, kept),
        message=_message(db, revision),
        innovation=_innovation(revision),
        inputs=_document(kept),
        inputs_hash=revision.inputs_hash,
        inputs_hold=found == revision.inputs_hash,
        history=list(_notes(notes.of_revision(db, row.vehicle_id, row.number))),
    )


def _approval(row: RevisionRow, revision: Revision, kept: bytes) -> Approval:
    cause, order = revision.cause, None
    try:
        order = inputs.decode(kept).order or None if kept else None
    except MalformedMessageError:
        order = None
    return Approval(
        by=row.approval_by or cause.ordered_by or "service",
        why=row.approval_why or cause.why,
        order=order,
        state=row.approval,
        at=row.approval_at,
    )


def _message(db: Session, revision: Revision) -> Message | None:
    cause = revision.cause
    if cause.kind not in {"breach", "recalibration"}:
        return None
    wanted = cause.replays or cause.message_id
    found: list[Breach] = revisions.breaches_of(db, revision.vehicle_id, [wanted])
    if not found:
        return Message(
            message_id=wanted,
            trip_id=cause.trip_id or "",
            received_at=0.0,
            odometer=revision.odometer,
            error_v=0.0,
            threshold_v=0.0,
            kept=False,
        )
    fields = found[0].model_dump(include=set(Message.model_fields))
    return Message(**fields, kept=True)


def _innovation(revision: Revision) -> Innovation | None:
    cause = revision.cause
    if cause.points == 0:
        return None
    return Innovation(
        nis=cause.nis,
        degrees=cause.points,
        points=cause.points,
        error_before_v=cause.error_before_v,
        error_after_v=cause.error_after_v,
        finding=cause.finding,
    )


def _document(kept: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(kept, type=dict[str, Any]) if kept else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _notes(rows: Iterable[RevisionNote]) -> Iterable[Note]:
    for row in rows:
        yield Note(at=row.at, kind=row.kind, detail=_document(row.detail) or {})
