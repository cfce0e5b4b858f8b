"""What happened, one row each, in the order in which it is read: live views, webhooks, audit.

Must never be the only place where a fact stands: rows go when they are old.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary
from sqlmodel import Field, SQLModel


class Event(SQLModel, table=True):
    """`kind` is a dotted name such as `revision.made`; `detail` is JSON."""

    __table_args__ = (Index("event_of_vehicle", "vehicle_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    at: float
    kind: str
    vehicle_id: str | None = None
    cohort: str | None = None
    actor: str | None = None  # who did it; None: the service itself, or the vehicle
    detail: bytes = Field(sa_type=LargeBinary)
