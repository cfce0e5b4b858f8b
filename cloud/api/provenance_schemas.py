"""What the API answers of a revision's past. Times are UNIX seconds, as they are signed.

Must never hold what only the database knows of itself.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Note(BaseModel):
    """One thing that became of it."""

    at: float = Field(description="UNIX seconds.")
    kind: str = Field(examples=["pushed", "applied", "refused", "confirmed", "fell_back"])
    detail: dict[str, Any]


class Message(BaseModel):
    """The breach that it was calibrated on."""

    message_id: str
    trip_id: str
    received_at: float
    odometer: float
    error_v: float
    threshold_v: float
    kept: bool = Field(description="False: the message is not kept any more.")


class Approval(BaseModel):
    """Who or what wanted it."""

    by: str = Field(description="`service`, or the name of an operator.", examples=["service"])
    why: str
    order: str | None = Field(description="The order that it carries out.", examples=[None])
    state: str | None = Field(
        default=None, description="`pending`, `approved`, `rejected`; null: it needed no approval."
    )
    at: float | None = Field(default=None, description="When somebody approved or rejected it.")


class Innovation(BaseModel):
    """How surprising the trace was: `nis` is about `points` where everything is as assumed."""

    nis: float
    degrees: int
    points: int
    error_before_v: float
    error_after_v: float
    finding: Literal["drift", "changed_battery"]


class RevisionAudit(BaseModel):
    """What is signed, what it was made from, and what became of it."""

    vehicle_id: str
    number: int
    hash: str
    parent_hash: str
    key_id: str
    signature: str
    kind: str
    base: int
    bundle: str
    prior_version: int
    code_version: str
    created_at: float
    approved: Approval
    message: Message | None
    innovation: Innovation | None
    inputs: dict[str, Any] | None = Field(description="Null: made before they were kept.")
    inputs_hash: str
    inputs_hold: bool = Field(description="Whether the inputs have the hash that was signed.")
    history: list[Note] = Field(description="Pushes and verdicts, the oldest first.")
