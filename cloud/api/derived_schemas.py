"""What the API answers about quantities that are derived from an estimate, and what it is asked.

Must never hold a quantity without its interval and the state of its estimate.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from cloud.api.schemas import EstimateState
from common.messages import MAX_ODOMETER
from common.planned_trip import MOST_ROWS

Odometer = Annotated[float, Field(ge=0, le=MAX_ODOMETER, allow_inf_nan=False)]
MileageSource = Literal["trips", "given"]
Signals = Annotated[dict[str, float], Field(max_length=64)]


class Derived(BaseModel):
    """Beside every derived quantity: how far its estimate may be relied on, and its origin."""

    vehicle_id: str
    state: EstimateState
    state_reason: str | None
    revision: int = Field(description="The revision it is read off; 0: the bundle's prior.")
    odometer: float = Field(description="Where the estimate stands.")
    odometer_unit: str


class IntervalItem(BaseModel):
    """A value and its interval; null: beyond what was looked at, the end is open."""

    value: float | None = Field(examples=[181.4])
    std: float | None = Field(examples=[4.1])
    low: float | None = Field(examples=[173.6])
    high: float | None = Field(examples=[189.7])
    unit: str = Field(examples=["km"])
    level: float = Field(examples=[0.95])


class HealthQuestion(BaseModel):
    """Where health is asked for."""

    model_config = {"extra": "forbid"}

    odometer: Odometer | None = Field(default=None, description="[default: its last odometer]")


class Health(Derived):
    """State of health: 1 is as new. Null where the bundle lets none be read.

    The ends are quantiles: the band need not be symmetric. An end that is null lies beyond the
    bundle's sweep.
    """

    state_of_health: float | None = Field(examples=[0.83])
    state_of_health_std: float | None = Field(examples=[0.012])
    band95_lower: float | None = Field(examples=[0.806])
    band95_upper: float | None = Field(examples=[0.854])
    usable: float | None = Field(description="Where the cut-off is reached, in `usable_unit`.")
    usable_std: float | None
    usable_band95_lower: float | None
    usable_band95_upper: float | None
    usable_unit: str | None = Field(examples=["km"])
    last_trip_received_at: datetime | None


class ForecastQuestion(BaseModel):
    """What a forecast is asked; `horizon` by default ten years of the vehicle's own mileage."""

    model_config = {"extra": "forbid"}

    threshold: float = Field(default=0.8, gt=0, lt=1, description="Of state of health.")
    horizon: float | None = Field(
        default=None,
        gt=0,
        le=MAX_ODOMETER,
        allow_inf_nan=False,
        description="How far ahead to look, in odometer units [default: ten years of its mileage].",
    )
    odometer_per_day: float | None = Field(
        default=None,
        gt=0,
        le=MAX_ODOMETER,
        allow_inf_nan=False,
        description="Odometer units a day [default: from its trips].",
    )
    odometer_per_day_std: float = Field(
        default=0.0, ge=0, le=MAX_ODOMETER, allow_inf_nan=False, description="Its uncertainty."
    )


class MileageItem(BaseModel):
    """By how much the odometer grows in a day, and who says so."""

    per_day: float = Field(description="In `odometer_unit`.", examples=[52.3])
    std: float
    source: MileageSource


class DateItem(BaseModel):
    """A date with its interval; null: not within the horizon, or beyond the calendar."""

    value: datetime | None
    low: datetime | None
    high: datetime | None
    std_days: float | None
    level: float = Field(examples=[0.95])


class Forecast(Derived):
    """When state of health falls to `threshold`: medians over sampled paths of ageing."""

    threshold: float = Field(examples=[0.8])
    horizon: float = Field(description="How far ahead was looked, in `odometer_unit`.")
    crossing_odometer: IntervalItem
    crossing_date: DateItem | None = Field(description="Null while its mileage is unknown.")
    mileage: MileageItem | None
    already_below: bool = Field(description="More likely than not.")
    below_share: float = Field(description="Share of the paths that are below already.")
    never_share: float = Field(description="Share of the paths that stay above in the horizon.")


class RangeRequest(BaseModel):
    """Where the swept feature stands, and under which conditions (default: the bundle's)."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {"examples": [{"conditions": {"distance_km": 40, "load_kg": 5200}}]},
    }

    odometer: Odometer | None = None
    conditions: Signals
    consumption_per_km: float | None = Field(
        default=None,
        description="Of the swept feature, in its unit, where it is no distance.",
        gt=0,
        allow_inf_nan=False,
    )


class Range(Derived):
    """What is left until the cut-off under `conditions`."""

    remaining: IntervalItem
    remaining_distance: IntervalItem | None = Field(
        description="Null where the swept feature is no distance and no consumption was given."
    )
    conditions: dict[str, float]
    beyond_share: float = Field(
        description="Probability that it lasts beyond `looked_at`, where the bundle's sweep ends."
    )
    looked_at: float


class PlannedRowItem(BaseModel):
    """The signals at one moment of a planned trip; times from its start, rising."""

    model_config = {"extra": "forbid"}

    time_s: float | None = Field(
        default=None, description="Needed where the model has moving averages.", allow_inf_nan=False
    )
    signals: Signals


class PlannedTripRequest(BaseModel):
    """The rows of a planned trip, at one odometer (default: the last)."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "examples": [{"rows": [{"time_s": 0, "signals": {"distance_km": 0, "load_kg": 5200}}]}]
        },
    }

    odometer: Odometer | None = None
    rows: list[PlannedRowItem] = Field(min_length=1, max_length=MOST_ROWS)


class PlannedVoltage(BaseModel):
    """What the BMS will measure at a row."""

    voltage_v: float
    std_v: float
    band95_lower_v: float
    band95_upper_v: float


class PlaceItem(BaseModel):
    """Between two rows: fractional row, and time and swept feature where they are known."""

    row: float
    time_s: float | None
    swept: float | None


class PlannedTrip(Derived):
    """The band along the plan, and whether the battery stays above the cut-off to its end."""

    cutoff_voltage_v: float
    arrives: bool = Field(description="By the predicted voltage.")
    arrival_probability: float
    mean_crosses: PlaceItem | None = Field(description="Where the voltage falls to the cut-off.")
    band_crosses: PlaceItem | None = Field(description="Where the lower end of the band does.")
    rows: list[PlannedVoltage]
