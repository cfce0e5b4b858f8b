"""What the API takes and answers where operators write: settings, cohorts, orders, audit.

Must never let a write pass without its reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cloud.policy import DEFAULT

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


OrderKind = Literal["battery_replaced", "pin", "recalibration", "roll_back"]
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
    from_revision: int | None = Field(default=None, description="Breaches after it are replayed.")
    ended_at: datetime | None = Field(default=None, description="When a pin was ended.")
    revision: int | None = Field(description="The revision that it brought; null: none (yet).")
    problem: str | None = Field(description="Why it was refused.")


class PolicySettings(BaseModel):
    """What a policy says; what is left out is as in a cohort without a policy."""

    model_config = ConfigDict(extra="forbid")

    calibration: Literal["automatic", "approval"] = Field(
        default=DEFAULT.calibration,
        description="`approval`: a revision waits for an operator before it is pushed.",
    )
    calibrate_from_error_v: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="A breach with a smaller error brings no revision. (From which error on a trip "
        "is a breach stands in the bundle, and is the vehicle's to apply.)",
    )
    refuse_above_error_v: float | None = Field(
        default=None, gt=0, le=1000, description="Nor does one with a larger error."
    )
    health_limit: float = Field(
        default=DEFAULT.health_limit, gt=0, lt=1, description="Of state of health: below, an alarm."
    )
    forecast_horizon_days: float = Field(default=DEFAULT.forecast_horizon_days, gt=0, le=36525)
    stale_after_days: float = Field(
        default=DEFAULT.stale_after_days,
        gt=0,
        le=3650,
        description="Not seen for so long: an alarm.",
    )
    failures_in_a_row: int = Field(
        default=DEFAULT.failures_in_a_row,
        ge=1,
        le=1000,
        description="So many breaches that brought no usable revision: an alarm.",
    )


class PolicyChange(Told):
    """The policy of a cohort as it shall be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"policy": {"calibration": "approval"}, "why": "a pilot fleet"}]
        }
    )

    policy: PolicySettings


class PolicyItem(BaseModel):
    """A version of a cohort's policy; version 0 is what holds where nobody has said anything."""

    cohort: str
    version: int
    policy: PolicySettings
    changed_by: str | None
    changed_at: datetime | None
    why: str | None


class Verdict(Told):
    """An operator's decision on a revision that waits."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"why": "the error after it is plausible"}]}
    )


class ApprovalItem(BaseModel):
    """A revision that waits, or waited, for an operator."""

    vehicle_id: str
    revision: int
    approval: Literal["pending", "approved", "rejected"]
    made_at: datetime
    odometer: float
    decided_by: str | None
    decided_at: datetime | None
    why: str | None


class AlarmItem(BaseModel):
    """An alarm: one for each vehicle and type, raised again with the next cause."""

    id: int
    vehicle_id: str
    type: Literal["health", "no_revision", "revision_refused", "stale", "doubtful"]
    severity: Literal["critical", "major", "minor", "warning"]
    reason: str
    state: Literal["active", "cleared"]
    acknowledged: bool
    raised_at: datetime
    cleared_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    assignee: str | None
    comment: str | None
    times: int = Field(description="How often it has been raised.")


class AlarmAcknowledgement(Told):
    """Somebody knows of an alarm; `why` becomes its comment."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"why": "pack is ordered", "assignee": "workshop"}]}
    )

    assignee: str | None = Field(default=None, max_length=64)


class NewWebhook(Told):
    """Where events shall be carried, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://hooks.example.org/twin", "kinds": ["alarm."], "why": "on-call"}
            ]
        }
    )

    url: str = Field(min_length=1, max_length=2048)
    kinds: list[str] | None = Field(
        default=None, max_length=20, description="Kinds, or families (`alarm.`); null: all."
    )
    cohort: Name | None = Field(default=None, description="Of this cohort alone.")


class WebhookItem(BaseModel):
    """A webhook."""

    id: int
    url: str
    kinds: list[str] | None
    cohort: str | None
    made_by: str
    made_at: datetime
    why: str


class WebhookMade(WebhookItem):
    """A webhook that has just been made."""

    secret: str = Field(description="Signs each delivery (Standard Webhooks); shown this once.")


class DeliveryItem(BaseModel):
    """An event on its way to a webhook."""

    id: int
    event_id: int
    kind: str
    state: Literal["pending", "delivered", "given_up"]
    attempts: int
    status: int | None = Field(description="Of the last answer; null: there was none.")
    problem: str | None
    made_at: datetime
    next_at: datetime | None
    done_at: datetime | None


class EventItem(BaseModel):
    """Something that happened."""

    id: str = Field(description="For `Last-Event-ID`.", examples=["17"])
    at: datetime
    kind: str = Field(examples=["revision.made"])
    vehicle_id: str | None
    cohort: str | None
    actor: str | None = Field(description="Who did it; null: the service or the vehicle.")
    detail: dict[str, Any]
