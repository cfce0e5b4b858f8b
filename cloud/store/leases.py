"""Which of several processes has a duty that one of them is enough for.

A holder that ends without a word is followed by another when its lease has run out. Must never be
what correctness rests on: two may hold a lease for a moment, where their clocks differ.
"""

from __future__ import annotations

from sqlmodel import Session

from cloud.store import locks
from cloud.store.alert_tables import Lease


def holds(db: Session, name: str, holder: str, now: float) -> bool | None:
    """Whether it does; None: nobody does."""
    row = db.get(Lease, name)
    if row is None or row.until <= now:
        return None
    return row.holder == holder


def take(db: Session, name: str, holder: str, now: float, for_s: float) -> bool:
    """Have it from now on, or have it longer; False: somebody else has it."""
    locks.exclusive(db, f"lease {name}")
    if holds(db, name, holder, now) is False:
        return False
    db.merge(Lease(name=name, holder=holder, until=now + for_s))
    return True


def leave(db: Session, name: str, holder: str) -> None:
    """Another may have it at once."""
    row = db.get(Lease, name)
    if row is not None and row.holder == holder:
        db.delete(row)
