"""How much waits: bounded looks for those who watch the service.

Must never read more rows than its limit says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func
from sqlmodel import Session, col, select

from cloud.store.tables import Breach

AT_MOST: Final = 10_000
_SOME = (
    select(col(Breach.received_at).label("at"))
    .where(col(Breach.state) == "pending")
    .limit(AT_MOST)
    .subquery()
)
_PENDING = select(func.count(), func.min(_SOME.c.at)).select_from(_SOME)


@dataclass(frozen=True)
class Pending:
    """Breaches that wait, AT_MOST counted; when the oldest of these was committed."""

    breaches: int
    oldest_at: float | None


def pending(db: Session) -> Pending:
    """What waits for the worker."""
    breaches, oldest_at = db.exec(_PENDING).one()
    return Pending(breaches, oldest_at)
