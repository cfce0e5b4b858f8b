"""What a demo run found: plain values between the run, its report and its files.

Must never know how a run was made, nor how it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TripRow:
    """One trip. `odometer` at its start in the manifest's odometer unit; errors in volts.

    `updated`: this trip's breach brought a revision that the vehicle applied. Health as a ratio to
    new with the ends of its 95 % interval, None where unknown or open.
    """

    vehicle_id: str
    trip_id: str
    odometer: float
    error_frozen_v: float
    error_v: float
    breach: bool
    revision: int
    updated: bool
    health: float | None = None
    health_std: float | None = None
    health_low: float | None = None
    health_high: float | None = None
    health_truth: float | None = None


@dataclass(frozen=True)
class RevisionRow:
    """One revision: theta and its standard deviations in manifest order, and what caused it."""

    vehicle_id: str
    number: int
    trip_id: str
    odometer: float
    theta: list[float]
    theta_std: list[float]
    nis_per_point: float
    error_before_v: float
    error_after_v: float
    verdict: str


@dataclass(frozen=True)
class ExampleTrip:
    """One breach trip by sample [n]: measured, and predicted before and after its update."""

    vehicle_id: str
    trip_id: str
    axis_label: str
    axis: FloatArray
    measured_v: FloatArray
    frozen_v: FloatArray
    before_v: FloatArray
    before_std_v: FloatArray
    after_v: FloatArray
    after_std_v: FloatArray


@dataclass(frozen=True)
class VoltageHistory:
    """All samples of one vehicle [n] over its odometer: measured, frozen model, living twin."""

    vehicle_id: str
    odometer: FloatArray
    measured_v: FloatArray
    frozen_v: FloatArray
    living_v: FloatArray


@dataclass(frozen=True)
class RunResults:
    """Everything that the report shows. `summary`: rows of the closing table, label to text."""

    title: str
    subtitle: str
    manifest: Manifest
    trips: list[TripRow]
    revisions: list[RevisionRow]
    example: ExampleTrip | None
    history: VoltageHistory
    summary: Mapping[str, str]
    sources: list[str]
