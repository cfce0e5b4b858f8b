"""What happened, one row each, in the order in which it is read: live views, webhooks, audit.

Must never be the only place where a fact stands: rows go when they are old.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, text
from sqlmodel import Field, SQLModel


class Event(SQLModel, table=True):
    """`kind` is a dotted name such as `revision.made`; `detail` is JSON."""

    __table_args__ = (
        Index("event_of_vehicle", "vehicle_id", "id"),
        Index("event_by_age", "at"),
        Index(
            "event_of_actor",
            "id",
            sqlite_where=text("actor IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    at: float
    kind: str
    vehicle_id: str | None = None
    cohort: str | None = None
    actor: str | None = None  # who did it; None: the service itself, or the vehicle
    detail: bytes = Field(sa_type=LargeBinary)


class EventCursor(SQLModel, table=True):
    """How far a reader of this service has come; `name` is whose cursor it is."""

    __tablename__ = "event_cursor"

    name: str = Field(primary_key=True)
    event: int
