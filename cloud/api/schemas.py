"""What the API answers: field names carry their unit, times are RFC 3339 in UTC, null is unknown.

Quantities over the odometer are in `odometer_unit`, which the vehicle's bundle declares. Must never
hold an estimate without its standard deviation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from common.messages import MAX_ODOMETER

EstimateState = Literal["learning", "known", "stale", "doubtful"]

_VEHICLE = "car-7"
_HASH = "3f" * 32


class VehicleSummary(BaseModel):
    """A vehicle in the list."""

    vehicle_id: str = Field(examples=[_VEHICLE])
    state: EstimateState | None = Field(
        description="How far its estimate may be relied on; null when its bundle is unknown here.",
        examples=["known"],
    )
    state_reason: str | None = Field(description="Why it is not `known`.", examples=[None])
    cohort: str = Field(examples=["default"])
    online: bool | None = Field(examples=[True])
    first_seen_at: datetime
    last_seen_at: datetime | None
    last_seen_age_s: int | None = Field(description="Seconds since then.", examples=[42])
    bundle: str | None = Field(description="SHA-256 of the bundle it runs.", examples=[_HASH])
    bundle_name: str | None = Field(examples=["fleet"])
    revision: int | None = Field(description="The revision it runs; 0: nominal.", examples=[12])
    newest_revision: int = Field(description="The newest one made; 0: none.", examples=[12])
    trips: int = Field(examples=[100])
    breaches: int = Field(examples=[14])
    odometer: float | None = Field(examples=[32186.9])
    odometer_unit: str | None = Field(examples=["km"])
    last_trip_error_v: float | None = Field(
        description="Mean absolute error of the trip at the highest odometer.", examples=[0.031]
    )
    last_trip_received_at: datetime | None
    last_trip_age_s: int | None = Field(
        description="Seconds since then: how old error and odometer are.", examples=[4200]
    )
    soh: float | None = Field(
        description="State of health at revision `figures_revision`, 1 is as new; null: not known.",
        examples=[0.83],
    )
    soh_std: float | None = Field(description="Its standard deviation.", examples=[0.012])
    drift: float | None = Field(
        description="Loss of state of health over the next 1,000 odometer units.", examples=[0.004]
    )
    figures_revision: int | None = Field(
        description="The revision that the three were read off when it was made.", examples=[12]
    )


class Feature(BaseModel):
    """An input of the vehicle's model, for a prediction."""

    name: str = Field(examples=["distance_km"])
    unit: str = Field(examples=["km"])
    minimum: float
    maximum: float


class VehicleDetail(VehicleSummary):
    """A vehicle with what its agent says of itself, and what a prediction needs."""

    agent_version: str | None
    outbox_depth: int | None = Field(description="Messages that wait on the vehicle.")
    dropped_trips: int | None
    dropped_breaches: int | None
    refused_samples: int | None
    refused_messages: int | None
    on_trial: bool | None = Field(description="Its revision has not driven a whole trip yet.")
    fallen_back: int | None = Field(description="Revisions that were worse on their first trip.")
    trips_since_word: int | None = Field(description="Since it last heard that nothing is newer.")
    key_statement: int | None = Field(description="The last key statement that it believes.")
    time_known: bool | None = Field(description="Whether its clock has been set since it booted.")
    provisional: int | None = Field(
        description="The step of its own that it runs until it hears a newer revision; 0: none."
    )
    error_threshold_v: float | None = Field(description="Above it a trip is a breach.")
    cutoff_voltage_v: float | None
    features: list[Feature]


class TripItem(BaseModel):
    """The summary of a trip, as the vehicle sent it."""

    trip_id: str
    started_at: datetime
    time_known: bool = Field(
        description="False: the vehicle's clock had not been set, `started_at` is its guess."
    )
    received_at: datetime
    duration_s: float
    odometer_start: float
    odometer_end: float
    odometer_unit: str | None
    bundle: str
    revision: int = Field(description="The revision in force during the trip; 0: nominal.")
    samples: int
    refused_samples: int
    error_v: float = Field(description="Mean absolute error of the prediction.")
    band95_v: float = Field(description="Mean half width of the predicted 95 % band.")
    coverage95: float = Field(description="Share of the samples inside the 95 % band.")
    feature_means: dict[str, float] | None = Field(description="By feature, in its unit.")
    breach: bool
    partial: bool
    provisional: int = Field(
        description="Above 0: driven on that step of the vehicle's own, made on `revision`."
    )


class CauseItem(BaseModel):
    """Why a revision was made; of a breach, what the calibration saw on its trace."""

    kind: Literal["breach", "fleet_prior", "replacement", "roll_back", "recalibration"]
    finding: Literal["drift", "changed_battery"] = Field(
        description="What the trace says: it drifted as expected, or it changed at once."
    )
    message_id: str = Field(description="The message or order that brought the revision.")
    trip_id: str | None = Field(description="Null where no breach brought it.")
    points: int
    nis: float = Field(description="Normalised innovation squared; about `points` is expected.")
    error_before_v: float
    error_after_v: float
    returns_to: int = Field(description="Of a roll-back: the revision whose content it has again.")
    ordered_by: str
    why: str


class RevisionItem(BaseModel):
    """A revision in the list, with its lineage."""

    number: int
    hash: str = Field(examples=[_HASH])
    parent_hash: str = Field(description="Hash of the revision numbered just below.")
    base: int = Field(description="The revision whose posterior was the prior; 0: none.")
    prior_version: int = Field(
        description="The version of the fleet's prior that the battery began with; 0: the bundle's."
    )
    bundle: str
    odometer: float
    odometer_unit: str | None
    cause: CauseItem
    created_at: datetime
    published_at: datetime | None
    verdict: Literal["applied", "refused"] | None = Field(description="The vehicle's; null: none.")
    verdict_reason: str | None
    verdict_at: datetime | None
    confirmed_at: datetime | None = Field(
        description="When the vehicle said that its next trip was no worse; null: not (yet)."
    )
    approval: Literal["pending", "approved", "rejected"] | None = Field(
        default=None, description="An operator's; null: it needed none."
    )


class ParameterItem(BaseModel):
    """A calibrated parameter and its ageing rate per unit of the odometer."""

    name: str | None = Field(description="Null when the bundle is unknown here.", examples=["gain"])
    unit: str | None
    value: float
    std: float
    nominal: float | None
    rate: float
    rate_std: float
    rate_unit: str | None = Field(examples=["1/km"])


class RevisionDetail(RevisionItem):
    """A revision with its parameters, its signature and the vehicle's own measurement."""

    parameters: list[ParameterItem]
    key_id: str
    signature: str
    code_version: str
    verdict_detail: str | None
    trace_error_before_v: float | None = Field(description="On the trace that the vehicle kept.")
    trace_error_after_v: float | None
    next_trip_error_before_v: float | None = Field(
        description="Of what it replaced, on the first trip that it drove."
    )
    next_trip_error_after_v: float | None


class ProvisionalItem(BaseModel):
    """What a vehicle made for itself while it was cut off. No revision: it is not in the chain."""

    base: int = Field(description="The revision that it grew from; 0: the nominal parameters.")
    step: int = Field(description="The first, second … on that base, each on the one before.")
    bundle: str
    odometer: float
    odometer_unit: str | None
    cause_message_id: str = Field(description="The breach on which it was made.")
    trip_id: str
    finding: Literal["drift", "changed_battery"]
    points: int
    nis: float
    error_before_v: float
    error_after_v: float
    parameters: list[ParameterItem]
    made_at: datetime
    time_known: bool
    received_at: datetime
    replaced_by: int | None = Field(
        description="The revision of the chain that came of the same breach; null: none."
    )
    code_version: str


class PredictionRequest(BaseModel):
    """Rows of features by name, in the manifest's units, at one odometer (default: the last)."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "examples": [
                {"odometer": 32186.9, "rows": [{"distance_km": 10.0, "average_speed_mps": 17.9}]}
            ]
        },
    }

    odometer: float | None = Field(default=None, ge=0, le=MAX_ODOMETER, allow_inf_nan=False)
    rows: list[dict[str, float]] = Field(min_length=1, max_length=1000)


class PredictedRow(BaseModel):
    """The voltage that the BMS will measure, with its 95 % band."""

    voltage_v: float
    band95_lower_v: float
    band95_upper_v: float


class Prediction(BaseModel):
    """One predicted row for each row of the request."""

    vehicle_id: str
    bundle: str
    revision: int
    state: EstimateState
    state_reason: str | None
    odometer: float
    odometer_unit: str
    rows: list[PredictedRow]


class BatteryReplaced(BaseModel):
    """A battery was replaced: who says so, where, and why."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "examples": [{"by": "workshop", "odometer": 32186.9, "why": "two dead cells"}]
        },
    }

    by: str | None = Field(
        default=None,
        max_length=64,
        description="Who says so; counts only where the service authenticates nobody.",
    )
    odometer: float | None = Field(
        default=None,
        ge=0,
        le=MAX_ODOMETER,
        allow_inf_nan=False,
        description="Where it was replaced; default: the vehicle's last.",
    )
    why: str = Field(min_length=1, max_length=256)


class RollBack(BaseModel):
    """An operator wants the content of an earlier revision again: who, which one, and why."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {"examples": [{"by": "fleet desk", "to": 3, "why": "a bad sensor"}]},
    }

    by: str | None = Field(
        default=None,
        max_length=64,
        description="Who says so; counts only where the service authenticates nobody.",
    )
    to: int = Field(ge=1, le=10**9)
    why: str = Field(min_length=1, max_length=256)


class QuarantineItem(BaseModel):
    """A message that was refused, with its first bytes (what is no UTF-8 is replaced)."""

    id: int
    received_at: datetime = Field(description="The last time that it came.")
    times: int = Field(description="How often the very same message came.")
    topic: str
    error: str = Field(examples=["MalformedMessageError"])
    reason: str
    payload_bytes: int
    payload_head: str


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Everything that the service needs answers."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str] = Field(examples=[{"database": "ok", "broker": "ok"}])


class Recalibrate(BaseModel):
    """An operator wants breaches replayed: who, from which revision on, and why."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {"examples": [{"by": "fleet desk", "from": 3, "why": "a bad sensor"}]},
    }

    by: str | None = Field(
        default=None,
        max_length=64,
        description="Who says so; counts only where the service authenticates nobody.",
    )
    start: int = Field(
        alias="from", ge=0, le=2**31 - 1, description="0: from the beginning of the battery."
    )
    why: str = Field(min_length=1, max_length=256)


class Unpin(BaseModel):
    """An operator ends a pin: who, and why."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {"examples": [{"by": "fleet desk", "why": "the sensor was changed"}]},
    }

    by: str | None = Field(
        default=None,
        max_length=64,
        description="Who says so; counts only where the service authenticates nobody.",
    )
    why: str = Field(min_length=1, max_length=256)
