"""What the API takes and answers about maintenance, and the fleet's health with its forecast.

Must never hold a forecast without its interval.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.api.derived_schemas import Odometer
from cloud.api.moments import Moment
from cloud.api.operator_schemas import Name, Told
from cloud.api.schemas import EstimateState

TaskState = Literal["proposed", "scheduled", "done", "dismissed", "withdrawn"]


class OdometerSpan(BaseModel):
    """The median over the forecast's paths, with its 10 % and 90 % ends; null: beyond it."""

    value: float | None
    low: float | None
    high: float | None


class DateSpan(BaseModel):
    """The same as a date."""

    value: datetime | None
    low: datetime | None
    high: datetime | None


class TaskItem(BaseModel):
    """Something to be done to a vehicle, or that was."""

    id: int
    vehicle_id: str
    kind: str = Field(examples=["battery_health"])
    state: TaskState = Field(
        description="proposed: by the service; withdrawn: its forecast no longer says so."
    )
    due: DateSpan
    due_odometer: OdometerSpan
    reason: str
    revision: int = Field(description="That it was forecast from; 0: a person made it.")
    changed_by: str | None = Field(description="Null: the service.")
    made_at: datetime
    changed_at: datetime


class Planned(Told):
    """When a person wants something done."""

    due_at: Moment
    due_odometer: Odometer | None = None


class NewTask(Planned):
    """Something that a person wants done, of any kind."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"kind": "coolant", "due_at": "2027-03-01T08:00:00Z", "why": "recall"}]
        }
    )

    kind: Name


class TaskVerdict(Told):
    """A person's word on an open task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "two modules changed"}]})


class VehicleHealth(BaseModel):
    """Of one vehicle, as its last revision and its last forecast have it."""

    vehicle_id: str
    cohort: str
    state: EstimateState | None
    state_reason: str | None
    state_of_health: float | None
    state_of_health_std: float | None
    band95_lower: float | None = Field(description="Linear; `/vehicles/{id}/health` samples it.")
    band95_upper: float | None
    drift: float | None = Field(description="Loss over the next 1,000 odometer units.")
    odometer: float | None
    odometer_unit: str | None
    health_limit: float | None = Field(description="Of its cohort's policy when it was forecast.")
    limit_odometer: OdometerSpan | None = Field(description="Where health falls to the limit.")
    limit_at: DateSpan | None
    forecast_at: datetime | None
    forecast_problem: str | None = Field(description="Why there is no forecast.")
