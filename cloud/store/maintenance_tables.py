"""The last forecast of each vehicle, and maintenance: what is proposed, planned and was done.

Must never hold two open tasks of a kind for one vehicle: an index refuses.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

_OPEN: Final = text("state IN ('proposed', 'scheduled')")


class Outlook(SQLModel, table=True):
    """When a vehicle's health falls to `health_limit`: median, 10 % and 90 % of the paths.

    Null: not within the horizon, or not known; `problem` says why nothing is.
    """

    vehicle_id: str = Field(primary_key=True)
    revision: int
    made_at: float
    health_limit: float
    horizon_days: float
    odometer: float | None = None
    odometer_low: float | None = None
    odometer_high: float | None = None
    at: float | None = None
    at_low: float | None = None
    at_high: float | None = None
    never_share: float | None = None
    problem: str | None = None


class MaintenanceTask(SQLModel, table=True):
    """Something to be done: proposed, scheduled; then done, dismissed or withdrawn.

    The interval is the forecast's; a date that a person has set has none.
    """

    __tablename__ = "maintenance_task"
    __table_args__ = (
        Index("maintenance_of_vehicle", "vehicle_id", "id"),
        Index("maintenance_by_date", "due_at", "id"),
        Index(
            "maintenance_open",
            "vehicle_id",
            "kind",
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    kind: str
    state: str
    due_at: float
    due_at_low: float | None = None
    due_at_high: float | None = None
    due_odometer: float | None = None
    due_odometer_low: float | None = None
    due_odometer_high: float | None = None
    revision: int = 0  # that it was forecast from; 0: a person made it
    reason: str
    actor: str | None = None  # who changed it last; None: the service
    made_at: float
    changed_at: float
    changes: int = 0
