"""What the API is asked about conditions that might be, and what it answers.

Must never let one request ask for more work than `MOST_POINTS` allows.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud.api.derived_schemas import (
    Derived,
    IntervalItem,
    Odometer,
    PlaceItem,
    PlannedRowItem,
    PlannedVoltage,
    Signals,
)
from cloud.api.operator_schemas import Name

MOST_SCENARIOS: Final = 20
MOST_VEHICLES: Final = 50
MOST_POINTS: Final = 8192  # voltages of one request, over all scenarios and vehicles
MOST_ROWS: Final = 1024


class Scenario(BaseModel):
    """Conditions that stay, from where the swept feature stands now on; or a planned trip.

    With `conditions` alone the answer is what is left; with `until`, too, the trip up to there.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    conditions: Signals | None = Field(
        default=None,
        description="By feature; those left out stand at the bundle's reference, the swept one "
        "where the sweep begins.",
    )
    until: float | None = Field(
        default=None, allow_inf_nan=False, description="Of the swept feature, where the trip ends."
    )
    points: int = Field(default=20, ge=2, le=500, description="Along the trip up to `until`.")
    rows: list[PlannedRowItem] | None = Field(default=None, min_length=1, max_length=MOST_ROWS)
    consumption_per_km: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Of the swept feature, in its unit, where it is no distance.",
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.conditions is None) == (self.rows is None):
            problem = "needs either conditions or rows"
            raise ValueError(problem)
        if self.rows is not None and self.until is not None:
            problem = "until goes with conditions: rows have an end of their own"
            raise ValueError(problem)
        return self

    @property
    def voltages(self) -> int:
        """How many are to be predicted."""
        return len(self.rows) if self.rows is not None else self.points if self.until else 1


Scenarios = Annotated[list[Scenario], Field(min_length=1, max_length=MOST_SCENARIOS)]
_EXAMPLE: Final[dict[str, Any]] = {
    "scenarios": [
        {"name": "as now", "conditions": {"distance_km": 0}, "until": 120},
        {"name": "loaded", "conditions": {"distance_km": 0, "load_kg": 7000}, "until": 120},
    ]
}


class WhatIf(BaseModel):
    """Scenarios for one vehicle, at one odometer (default: its last)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    odometer: Odometer | None = None
    scenarios: Scenarios

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        _require_bounded(self.scenarios, 1)
        return self


class FleetWhatIf(BaseModel):
    """The same scenarios for many vehicles: those named, or the first ones of a cohort."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"cohort": "north", **_EXAMPLE}]}
    )

    vehicle_ids: list[Name] | None = Field(default=None, min_length=1, max_length=MOST_VEHICLES)
    cohort: Name | None = None
    limit: int = Field(
        default=20, ge=1, le=MOST_VEHICLES, description="Of a cohort, how many vehicles at most."
    )
    scenarios: Scenarios

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if (self.vehicle_ids is None) == (self.cohort is None):
            problem = "needs either vehicle_ids or cohort"
            raise ValueError(problem)
        _require_bounded(self.scenarios, len(self.vehicle_ids or ()) or self.limit)
        return self


def _require_bounded(scenarios: list[Scenario], vehicles: int) -> None:
    asked = vehicles * sum(scenario.voltages for scenario in scenarios)
    if asked > MOST_POINTS:
        problem = f"asks for {asked} voltages; one request may ask for {MOST_POINTS}"
        raise ValueError(problem)


class Arrival(BaseModel):
    """The battery where the trip ends."""

    voltage: PlannedVoltage
    remaining: IntervalItem | None = Field(
        description="Of the swept feature, from there to the cut-off; null beyond the sweep."
    )
    charge: IntervalItem | None = Field(
        description="What remains, of what there is from where the sweep begins (1: all)."
    )


class Outcome(BaseModel):
    """What a scenario comes to. Null: not asked for."""

    name: str
    conditions: dict[str, float] | None = Field(description="Of all features, where it begins.")
    remaining: IntervalItem | None = Field(description="To the cut-off, from where it begins.")
    remaining_distance: IntervalItem | None
    arrives: bool | None = Field(
        description="By the predicted voltage; false: it meets the cut-off."
    )
    arrival_probability: float | None
    arrival: Arrival | None
    mean_crosses: PlaceItem | None
    band_crosses: PlaceItem | None
    rows: list[PlannedVoltage] | None


class WhatIfAnswer(Derived):
    """One outcome for each scenario, in their order."""

    cutoff_voltage_v: float
    outcomes: list[Outcome]


class VehicleOutcomes(BaseModel):
    """What the scenarios come to for one vehicle, or why that cannot be said."""

    vehicle_id: str
    answer: WhatIfAnswer | None
    problem: str | None


class FleetWhatIfAnswer(BaseModel):
    """One item for each vehicle."""

    items: list[VehicleOutcomes]
    more: bool = Field(description="Whether the cohort has more vehicles than were looked at.")
