"""What the API answers about a vehicle's past: traces, parameters over the odometer, differences.

Must never hold an estimate without its standard deviation or band.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from cloud.api.schemas import RevisionItem


class PredictedBand(BaseModel):
    """What the BMS would measure by a revision, and the 95 % band of it."""

    voltage_v: float = Field(examples=[3.61])
    band95_lower_v: float = Field(examples=[3.57])
    band95_upper_v: float = Field(examples=[3.65])


class TracePoint(BaseModel):
    """One sample of the trace."""

    time_s: float = Field(description="From the trip's start.")
    features: dict[str, float] = Field(description="By name, in the manifest's units.")
    measured_v: float
    predicted: PredictedBand = Field(description="By the revision in force on the trip.")
    recalibrated: PredictedBand | None = Field(description="By the one that came of it; null: none")


class TripTrace(BaseModel):
    """The trace that a breach brought, and what was predicted along it.

    Errors are mean absolute errors over these points, aligned with the first of them.
    """

    vehicle_id: str
    trip_id: str
    bundle: str
    odometer: float
    odometer_unit: str
    revision: int = Field(description="In force on the trip; 0: the bundle's prior.")
    recalibrated_revision: int | None = Field(description="That came of this trip; null: none.")
    outcome: Literal["pending", "calibrated", "declined"] = Field(
        description="What became of the breach."
    )
    outcome_reason: str | None = Field(description="Why it was declined.")
    error_v: float = Field(description="As the vehicle told it, over all samples.")
    threshold_v: float
    predicted_error_v: float
    recalibrated_error_v: float | None
    points: list[TracePoint]


class ParameterPoint(BaseModel):
    """A parameter as one revision has it."""

    vehicle_id: str = Field(examples=["car-7"])
    revision: int = Field(examples=[12])
    odometer: float = Field(examples=[32186.9])
    created_at: datetime
    value: float = Field(examples=[1.021])
    std: float = Field(examples=[0.004])
    band95_lower: float = Field(examples=[1.0132])
    band95_upper: float = Field(examples=[1.0288])
    verdict: Literal["applied", "refused"] | None


class ParameterHistory(BaseModel):
    """A parameter over the revisions of one vehicle or of several, by vehicle and number."""

    parameter: str = Field(examples=["gain_distance"])
    unit: str | None = Field(examples=["1"])
    odometer_unit: str | None = Field(examples=["km"])
    vehicles: int = Field(description="How many it is about.", examples=[1])
    every: int = Field(
        description="1: each revision; n: thinned to every n-th number so as to keep `points`.",
        examples=[1],
    )
    points: list[ParameterPoint]


class ParameterChange(BaseModel):
    """A parameter in two revisions, the earlier one carried to where the later one stands."""

    name: str
    unit: str | None
    from_value: float
    from_std: float
    to_value: float
    to_std: float
    change: float
    change_std: float | None = Field(
        description="How far the evidence between them could be expected to move it; null: no room."
    )
    z: float | None = Field(description="`change` in such standard deviations.", examples=[2.4])
    significant: bool = Field(description="Beyond 1.96 of them.")


class RevisionDiff(BaseModel):
    """Two revisions of a vehicle side by side."""

    vehicle_id: str
    odometer: float = Field(description="Of the later one, where both are compared.")
    odometer_unit: str
    related: bool = Field(
        description="The later grew out of the earlier: then its evidence is not counted twice."
    )
    before: RevisionItem
    after: RevisionItem
    parameters: list[ParameterChange]


class Bin(BaseModel):
    """How many lie in [from, to); a null end is open."""

    lower: float | None
    upper: float | None
    count: int


class Summary(BaseModel):
    """The fleet between two times, and how its vehicles stand now."""

    since: datetime
    until: datetime
    vehicles: int
    vehicles_online: int
    vehicles_by_state: dict[str, int] = Field(
        description="Of those whose bundle is known here.", examples=[{"known": 80, "stale": 3}]
    )
    trips: int = Field(description="That arrived in this time.")
    breaches: int
    revisions_by_kind: dict[str, int] = Field(examples=[{"breach": 14, "roll_back": 1}])
    revisions_by_verdict: dict[str, int] = Field(examples=[{"applied": 13, "none": 2}])
    trip_error_v: list[Bin] = Field(description="Mean absolute errors of the trips, in volts.")
    soh: list[Bin] = Field(description="State of health of the vehicles, now.")
    soh_unknown: int


BreachState = Literal["pending", "calibrated", "declined"]


class BreachItem(BaseModel):
    """A breach, and what became of it; its trace is under its trip."""

    message_id: str
    trip_id: str
    bundle: str
    revision: int = Field(description="That the vehicle ran on the trip; 0: none.")
    provisional: int = Field(description="The step of its own that it ran; 0: none.")
    odometer: float
    odometer_unit: str | None
    error_v: float
    threshold_v: float
    state: BreachState = Field(description="pending: it waits to be calibrated.")
    reason: str | None = Field(description="Why it was declined.")
    brought: int | None = Field(description="The revision that it brought; null: none (yet).")
    received_at: datetime
    decided_at: datetime | None
    told_at: datetime | None = Field(
        description="When the broker took the news that it was declined."
    )
