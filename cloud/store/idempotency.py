"""The same write again is the same answer: kept for a day, in the write's own transaction.

Must never keep an answer of a write that was rolled back.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, text
from sqlmodel import Session, col

from cloud.errors import KeyInUseError, KeyReusedError
from cloud.store.operator_tables import IdempotencyKey

KEPT_S: Final = 86400.0
_TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")


def known(db: Session, actor: str, key: str, fingerprint: str, now: float) -> IdempotencyKey | None:
    """The answer that was given to this key; None: it is new, and this transaction's alone.

    Raises KeyReusedError (another request had it), KeyInUseError (the first is not done yet; where
    there is one writer at a time it is waited for instead).
    """
    _claim(db, actor, key)
    db.exec(delete(IdempotencyKey).where(col(IdempotencyKey.made_at) < now - KEPT_S))
    row = db.get(IdempotencyKey, (actor, key))
    if row is not None and row.fingerprint != fingerprint:
        raise KeyReusedError(key)
    return row


def _claim(db: Session, actor: str, key: str) -> None:
    connection = db.connection()
    if connection.dialect.name != "postgresql":
        return
    if not connection.execute(_TRY_LOCK, {"name": f"{actor}\n{key}"}).scalar():
        raise KeyInUseError(key)
