"""API keys: whom each lets in, and until when. The secret itself is nowhere.

Must never hold what a thief of the database could knock with.
"""

from __future__ import annotations

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel


class ApiKey(SQLModel, table=True):
    """One key. `cohorts` is a JSON list of names; None: every one."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)  # 16 hex digits, in the key itself
    name: str
    role: str
    cohorts: str | None = None
    digest: bytes = Field(sa_type=LargeBinary)  # SHA-256 of the secret
    former_digest: bytes | None = Field(default=None, sa_type=LargeBinary)
    former_until: float | None = None  # after a rotation, the old secret works until then
    created_at: float
    created_by: str
    rotated_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
