"""What the API answers about API keys, and what it is asked.

Must never hold a secret but in the answer that makes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from cloud.api.moments import Moment
from cloud.api.views import some_utc, utc
from cloud.security import api_keys
from cloud.security.actors import Role
from cloud.store.access_tables import ApiKey

_LONGEST_OVERLAP_H: Final = 24 * 31


class ApiKeyRequest(BaseModel):
    """A key that is wanted."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "examples": [{"name": "grafana", "role": "viewer", "cohorts": ["pilot"]}]
        },
    }

    name: str = Field(min_length=1, max_length=api_keys.LONGEST_NAME)
    role: Role
    cohorts: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        default=None, max_length=100, description="Whose vehicles it opens; null: every cohort."
    )
    expires_at: Moment | None = Field(default=None, description="Null: never.")


class Rotation(BaseModel):
    """How long the old secret works beside the new one."""

    model_config = {"extra": "forbid"}

    overlap_h: float = Field(default=24.0, ge=0, le=_LONGEST_OVERLAP_H, allow_inf_nan=False)


class ApiKeyItem(BaseModel):
    """A key, without its secret."""

    id: str = Field(examples=["0123456789abcdef"])
    name: str
    role: Role
    cohorts: list[str] | None = Field(description="Null: every cohort.")
    created_at: datetime
    created_by: str
    rotated_at: datetime | None
    former_secret_until: datetime | None = Field(description="The secret before the last rotation.")
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class ApiKeyWithSecret(ApiKeyItem):
    """A key with its secret, which is shown this once."""

    key: str = Field(examples=["twin_0123456789abcdef_…"])


def fields(row: ApiKey) -> dict[str, Any]:
    """What may be shown of a key."""
    cohorts = api_keys.cohorts_of(row)
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "cohorts": None if cohorts is None else sorted(cohorts),
        "created_at": some_utc(row.created_at),
        "created_by": row.created_by,
        "rotated_at": utc(row.rotated_at),
        "former_secret_until": utc(row.former_until),
        "expires_at": utc(row.expires_at),
        "revoked_at": utc(row.revoked_at),
        "last_used_at": utc(row.last_used_at),
    }


def items(rows: Iterable[ApiKey]) -> list[ApiKeyItem]:
    """Keys as they are listed."""
    return [ApiKeyItem(**fields(row)) for row in rows]
