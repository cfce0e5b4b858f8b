"""The voltage band along a trip that is only planned, and whether the battery lasts.

Pure; randomness is passed in. Must never judge a trip on single samples' noise: the band says what
the BMS will measure, the arrival asks about the battery's own voltage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import QuestionError
from common.estimate import Estimate
from common.features import FeatureBuilder, MissingSignalError
from common.manifest import Manifest, Signal
from common.model import VoltageModel
from common.plausible import checked_value
from common.sampling import LEVEL, Batteries, drawn_batteries, standard_normals, thetas_of

FloatArray = npt.NDArray[np.float64]

MOST_ROWS: Final = 4096


@dataclass(frozen=True)
class PlannedRow:
    """The signals at one moment of the plan, as the manifest names them.

    Time is from the trip's start; only moving averages need it.
    """

    signals: Mapping[str, float]
    time_s: float | None = None


@dataclass(frozen=True)
class Place:
    """A place between two rows of the plan: fractional row, time and swept feature if known."""

    row: float
    time_s: float | None
    swept: float | None


@dataclass(frozen=True)
class PlannedTrip:
    """Voltage [m] along the plan with its standard deviation and band at `level`, in volts.

    `mean_crosses` and `band_crosses` are where the predicted voltage and the band's lower end fall
    to the cut-off (None: not on this trip); `arrives` is whether the predicted voltage stays above
    it, `arrival_probability` how likely the battery does.
    """

    voltage_v: FloatArray
    std_v: FloatArray
    low_v: FloatArray
    high_v: FloatArray
    mean_crosses: Place | None
    band_crosses: Place | None
    arrives: bool
    arrival_probability: float
    level: float = LEVEL


def plan_trip(
    estimate: Estimate,
    rows: Sequence[PlannedRow],
    model: VoltageModel,
    manifest: Manifest,
    rng: np.random.Generator,
) -> PlannedTrip:
    """The band along `rows`. Raises QuestionError.

    `estimate` is the trip's (`align`, or `with_trip_spread` before it begins). The spread is that
    of its parameters, the model's discrepancy (one for the whole trip) and, in the band only, the
    measurement noise.
    """
    features = planned_features(rows, manifest)
    drawn = drawn_batteries(estimate, manifest, rng)
    voltage = model.predict(features, estimate.theta)
    own = model.predict_grid(features, thetas_of(drawn, manifest)) + drawn.discrepancy_v[:, None]
    measured = own + _noise(drawn, manifest, rng)[:, None]
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(measured, [outside, 1 - outside], axis=0)
    cutoff = manifest.cutoff_voltage_v
    mean_crosses = _first_place(voltage, cutoff, rows, features, manifest)
    return PlannedTrip(
        voltage_v=voltage,
        std_v=measured.std(axis=0),
        low_v=low,
        high_v=high,
        mean_crosses=mean_crosses,
        band_crosses=_first_place(low, cutoff, rows, features, manifest),
        arrives=mean_crosses is None,
        arrival_probability=float((own > cutoff).all(axis=1).mean()),
    )


def planned_features(rows: Sequence[PlannedRow], manifest: Manifest) -> FloatArray:
    """Feature rows [m, F], moving averages as the vehicle computes them. Raises QuestionError."""
    if not 0 < len(rows) <= MOST_ROWS:
        raise QuestionError("rows", f"needs 1 to {MOST_ROWS} rows")
    builder = FeatureBuilder(manifest)
    declared = _declared_signals(manifest)
    times = _times(rows, manifest)
    features = []
    for index, (row, time_s) in enumerate(zip(rows, times, strict=True)):
        _check_signals(f"rows.{index}", row.signals, declared)
        try:
            features.append(builder.row(time_s, row.signals))
        except MissingSignalError as error:
            raise QuestionError(f"rows.{index}.{error.signal}", "needed") from error
    return np.array(features)


def _declared_signals(manifest: Manifest) -> dict[str, Signal]:
    """What a row may name: a moving average asks for the signal that it is computed of.

    Where that signal is a feature itself, its own range counts.
    """
    averaged: dict[str, Signal] = {
        feature.moving_average.signal: feature
        for feature in manifest.features
        if feature.moving_average
    }
    return averaged | {f.name: f for f in manifest.features if not f.moving_average}


def _check_signals(
    where: str, signals: Mapping[str, float], declared: Mapping[str, Signal]
) -> None:
    for name, value in signals.items():
        if name not in declared:
            known = ", ".join(declared)
            raise QuestionError(f"{where}.{name}"[:80], f"no such signal; known: {known}")
        checked_value(f"{where}.{name}", value, declared[name])


def _times(rows: Sequence[PlannedRow], manifest: Manifest) -> list[float]:
    needed = any(feature.moving_average for feature in manifest.features)
    times = []
    for index, row in enumerate(rows):
        time_s = row.time_s
        if time_s is None and needed:
            problem = "needed: the model has moving averages"
            raise QuestionError(f"rows.{index}.time_s", problem)
        times.append(float(index) if time_s is None else time_s)
        if not math.isfinite(times[-1]) or (index and times[-1] <= times[-2]):
            raise QuestionError(f"rows.{index}.time_s", "must be finite and later than before")
    return times


def _noise(drawn: Batteries, manifest: Manifest, rng: np.random.Generator) -> FloatArray:
    """One draw for each battery: what a band at one row needs."""
    normals = standard_normals(rng, len(drawn.states), 1)[:, 0]
    return manifest.measurement_noise_std_v * normals


def _first_place(
    voltage: FloatArray,
    cutoff: float,
    rows: Sequence[PlannedRow],
    features: FloatArray,
    manifest: Manifest,
) -> Place | None:
    """Where the voltage [m] first falls to the cut-off, linear between rows."""
    below = voltage <= cutoff
    if not below.any():
        return None
    after = int(below.argmax())
    before = max(after - 1, 0)
    share = (
        (voltage[before] - cutoff) / (voltage[before] - voltage[after]) if after > before else 0.0
    )

    def between(a: float, b: float) -> float:
        return float(a + share * (b - a))

    first, second = rows[before].time_s, rows[after].time_s
    timed = first is not None and second is not None
    swept = manifest.health.swept_feature if manifest.health else None
    column = features[:, manifest.feature_names.index(swept)] if swept else None
    return Place(
        row=between(before, after),
        time_s=between(first, second) if timed else None,  # type: ignore[arg-type]  # both known
        swept=between(column[before], column[after]) if column is not None else None,
    )
