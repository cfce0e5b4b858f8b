"""The statements about keys that this service has made, in their turn. Append-only by number.

Must never make one: that is for whoever holds a key.
"""

from __future__ import annotations

import msgspec
from sqlmodel import Session, col, func, select

from cloud.store.tables import KeyStatementRow
from common.messages import KeyChain, SignedStatement

_NEWEST = select(func.max(KeyStatementRow.number))


def newest(db: Session) -> int:
    """The number of the last statement; 0: there is none."""
    return db.exec(_NEWEST).one() or 0


def statements(db: Session) -> list[SignedStatement]:
    """Every statement, the oldest first."""
    rows = db.exec(select(KeyStatementRow).order_by(col(KeyStatementRow.number)))
    return [msgspec.json.decode(row.signed, type=SignedStatement) for row in rows]


def chain(db: Session) -> KeyChain | None:
    """What vehicles are sent; None: nobody has ever changed the keys."""
    found = statements(db)
    return KeyChain(statements=found) if found else None


def add(db: Session, number: int, signed: SignedStatement, now: float) -> None:
    """Keep the next statement."""
    db.add(KeyStatementRow(number=number, signed=msgspec.json.encode(signed), made_at=now))
