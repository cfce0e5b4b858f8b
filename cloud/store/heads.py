"""The signed statements of chain heads, and the heads of the newest one. Append-only by number.

Must never make a statement: that is for whoever holds a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import text
from sqlmodel import Session, col, select

from cloud.audit.heads import Signed
from cloud.audit.walk import Checkpoint
from cloud.errors import HeadsError
from cloud.store.audit_tables import HeadStatement

_HEADS = text("SELECT vehicle_id, number, hash FROM chain_head")
_ADD = text("INSERT INTO chain_head (vehicle_id, number, hash) VALUES (:vehicle, :number, :hash)")
_FORGET = text("DELETE FROM chain_head WHERE vehicle_id = :vehicle")


def newest(db: Session) -> Signed | None:
    """The newest statement. Raises HeadsError: its row was edited."""
    query = select(HeadStatement).order_by(col(HeadStatement.number).desc()).limit(1)
    row = db.exec(query).first()
    return _signed(row) if row is not None else None


def current(db: Session) -> dict[str, Checkpoint]:
    """The heads that the newest statement speaks of."""
    rows = db.connection().execute(_HEADS)
    return {vehicle_id: Checkpoint(number, digest) for vehicle_id, number, digest in rows}


def add(
    db: Session, number: int, signed: Signed, changed: Mapping[str, Checkpoint], now: float
) -> None:
    """Keep the next statement, and the heads that changed."""
    db.add(HeadStatement(number=number, signed=msgspec.json.encode(signed), made_at=now))
    db.flush()
    if changed:
        connection = db.connection()
        connection.execute(_FORGET, [{"vehicle": one} for one in changed])
        connection.execute(
            _ADD,
            [{"vehicle": one, "number": n, "hash": h} for one, (n, h) in changed.items()],
        )


def unexported(db: Session) -> Sequence[tuple[int, Signed]]:
    """Statements that no sink has taken yet, the oldest first. Raises HeadsError."""
    query = select(HeadStatement).where(col(HeadStatement.exported_at).is_(None))
    rows = db.exec(query.order_by(col(HeadStatement.number)))
    return [(row.number, _signed(row)) for row in rows]


def all_statements(db: Session) -> Sequence[tuple[int, Signed]]:
    """Every statement, the oldest first. Raises HeadsError."""
    rows = db.exec(select(HeadStatement).order_by(col(HeadStatement.number)))
    return [(row.number, _signed(row)) for row in rows]


def mark_exported(db: Session, numbers: Iterable[int], now: float) -> None:
    """A sink has taken these."""
    for number in numbers:
        row = db.get(HeadStatement, number)
        if row is not None:
            row.exported_at = now


def _signed(row: HeadStatement) -> Signed:
    try:
        return msgspec.json.decode(row.signed, type=Signed)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
        raise HeadsError(row.number, f"its row cannot be read ({error})") from error
