"""Keep API keys and find them.

Must never give a key another id, nor let a revoked one come back.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from cloud.store.access_tables import ApiKey


def add(db: Session, key: ApiKey) -> None:
    """Keep a new one."""
    db.add(key)


def find(db: Session, key_id: str) -> ApiKey | None:
    """One key, revoked or not."""
    return db.get(ApiKey, key_id)


def page(db: Session, after: str | None, limit: int) -> Sequence[ApiKey]:
    """Keys by id, revoked ones too."""
    query = select(ApiKey).order_by(col(ApiKey.id)).limit(limit)
    if after is not None:
        query = query.where(ApiKey.id > after)
    return db.exec(query).all()


def is_any(db: Session) -> bool:
    """Whether anybody could come in with a key at all."""
    query = select(ApiKey.id).where(col(ApiKey.revoked_at).is_(None)).limit(1)
    return db.exec(query).first() is not None


def note_use(db: Session, key_id: str, now: float) -> None:
    """It let somebody in."""
    key = db.get(ApiKey, key_id)
    if key is not None:
        key.last_used_at = now
