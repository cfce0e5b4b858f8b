"""What operators decide, and what keeps their writes from being done twice.

Must never hold a secret in a form that was not asked for: an answer is kept for a day.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel


class IdempotencyKey(SQLModel, table=True):
    """The answer to a write that carried an Idempotency-Key."""

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("idempotency_key_by_age", "made_at"),)

    actor: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str  # SHA-256 of method, address and body
    status: int
    headers: bytes = Field(sa_type=LargeBinary)  # JSON
    body: bytes = Field(sa_type=LargeBinary)
    made_at: float


class PolicyRow(SQLModel, table=True):
    """A version of a cohort's policy; `content` is JSON."""

    __tablename__ = "policy"
    __table_args__ = (UniqueConstraint("cohort", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    cohort: str
    version: int
    content: bytes = Field(sa_type=LargeBinary)
    actor: str
    why: str
    at: float
