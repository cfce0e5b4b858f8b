"""Alarms, webhooks and their deliveries.

Must never hold more of a webhook's past than its bounds say.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class Alarm(SQLModel, table=True):
    """One for each vehicle and type: raised again it is the same row, unacknowledged."""

    __table_args__ = (
        UniqueConstraint("vehicle_id", "type"),
        Index("alarm_active", "vehicle_id", sqlite_where=text("active")),
        Index("alarm_by_raise", "raised_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    type: str
    severity: str
    reason: str
    active: bool
    acknowledged: bool
    raised_at: float
    cleared_at: float | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    assignee: str | None = None
    comment: str | None = None
    times: int = 1


class Webhook(SQLModel, table=True):
    """Where events go. `last_event` is how far they have been made into deliveries."""

    id: int | None = Field(default=None, primary_key=True)
    url: str
    kinds: bytes = Field(sa_type=LargeBinary)  # JSON: a list, or null for all
    cohort: str | None = None
    secret: str
    made_by: str
    why: str
    made_at: float
    last_event: int
    leased_until: float = 0.0  # somebody delivers for it until then


class Delivery(SQLModel, table=True):
    """An event on its way to a webhook: pending, delivered or given up."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index(
            "delivery_pending",
            "webhook_id",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "delivery_given_up",
            "webhook_id",
            "id",
            sqlite_where=text("state = 'given_up'"),
            postgresql_where=text("state = 'given_up'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    webhook_id: int
    event_id: int
    kind: str
    body: bytes = Field(sa_type=LargeBinary)
    made_at: float
    state: str = "pending"
    attempts: int = 0
    next_at: float = 0.0
    status: int | None = None  # of the last answer
    problem: str | None = None
    done_at: float | None = None


class Lease(SQLModel, table=True):
    """Which of several processes has a duty, and until when unless it says so again."""

    name: str = Field(primary_key=True)
    holder: str
    until: float
