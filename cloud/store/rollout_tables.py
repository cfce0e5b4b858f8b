"""Staged roll-outs, and which vehicles they have ordered a bundle for.

Must never hold what a vehicle said of its release: that stands in the release.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, text
from sqlmodel import Field, SQLModel


class Rollout(SQLModel, table=True):
    """A roll-out; `plan` is JSON, `state` and `stage` say how far it has come.

    `cursor` is the last vehicle that the stage (or the roll-back) has come to. Trips that came
    until `trips_to` are counted.
    """

    __table_args__ = (
        Index("rollout_by_start", "started_at", "name"),
        Index(
            "rollout_at_work",
            "checked_at",
            sqlite_where=text("state IN ('running', 'soaking', 'rolling_back')"),
        ),
    )

    name: str = Field(primary_key=True)
    bundle: str
    plan: bytes = Field(sa_type=LargeBinary)
    planned: bytes = Field(sa_type=LargeBinary)  # JSON: how many vehicles each stage had then
    state: str
    stage: int = 0
    since: float  # when the stage was ordered, or the roll-out began or was resumed
    cursor: str = ""
    checked_at: float = 0.0
    halt: str | None = None  # the kind of rule that was broken
    why: str  # the last word on its state: an operator's, or the rule's
    actor: str | None = None  # whose; None: the service's own
    state_at: float
    started_by: str
    started_why: str
    started_at: float
    seen_answers: int = 0
    seen_refused: int = 0
    trips: int = 0
    error_sum_v: float = 0.0
    old_trips: int = 0
    old_error_sum_v: float = 0.0
    trips_to: float


class RolloutMember(SQLModel, table=True):
    """A vehicle that a roll-out has ordered its bundle for, and what it ran before."""

    __tablename__ = "rollout_member"
    __table_args__ = (Index("rollout_of_vehicle", "vehicle_id"),)

    rollout: str = Field(primary_key=True)
    vehicle_id: str = Field(primary_key=True)
    stage: int
    from_bundle: str
    release_id: int
    back_release_id: int | None = None  # that brings the bundle of before again
    ordered_at: float
