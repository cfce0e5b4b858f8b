"""What the API takes and answers where operators write: settings, cohorts, orders, audit.

Must never let a write pass without its reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Why = Annotated[str, Field(min_length=1, max_length=256, description="The reason, in a few words.")]
By = Annotated[
    str | None,
    Field(
        max_length=64,
        description="Who says so; counts only where the service authenticates nobody.",
    ),
]


class Told(BaseModel):
    """What every write brings: the reason, and who says so where nobody is authenticated."""

    model_config = ConfigDict(extra="forbid")

    why: Why
    by: By = None


class VehicleSettings(BaseModel):
    """What operators say of a vehicle."""

    vehicle_id: str
    cohort: str
    label: str | None
    note: str | None


class VehicleSettingsChange(Told):
    """The settings of a vehicle as they shall be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"cohort": "winter-2026", "label": "Van 7", "why": "goes north"}]
        }
    )

    cohort: Name
    label: str | None = Field(default=None, max_length=64)
    note: str | None = Field(default=None, max_length=2048)


class CohortItem(BaseModel):
    """A cohort and its size now."""

    name: str
    vehicles: int
    online: int


class CohortAssignment(Told):
    """Vehicles that shall be in a cohort, all of them or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"vehicle_ids": ["car-7", "car-8"], "why": "go north"}]}
    )

    vehicle_ids: list[str] = Field(min_length=1, max_length=1000)


class CohortAssigned(BaseModel):
    """What an assignment changed."""

    cohort: str
    assigned: int = Field(description="How many were in another cohort before.")
    already: int


OrderKind = Literal["battery_replaced", "roll_back"]
OrderState = Literal["waiting", "done", "refused"]


class OrderItem(BaseModel):
    """Something that an operator ordered, and how far it has come."""

    id: str = Field(examples=["roll_back-12"])
    kind: OrderKind
    vehicle_id: str
    state: OrderState
    ordered_by: str
    ordered_at: datetime
    why: str
    odometer: float | None = Field(default=None, description="Where the battery was replaced.")
    to_revision: int | None = Field(default=None, description="Whose content is wanted again.")
    revision: int | None = Field(description="The revision that it brought; null: none (yet).")
    problem: str | None = Field(description="Why it was refused.")


class EventItem(BaseModel):
    """Something that happened."""

    id: str = Field(description="For `Last-Event-ID`.", examples=["17"])
    at: datetime
    kind: str = Field(examples=["revision.made"])
    vehicle_id: str | None
    cohort: str | None
    actor: str | None = Field(description="Who did it; null: the service or the vehicle.")
    detail: dict[str, Any]
