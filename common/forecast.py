"""At which odometer, and after how many days, state of health falls to a threshold.

Pure; randomness is passed in. Must never propagate a state by itself: how a battery ages stands in
`common.estimate` alone. Must never say *when* for paths that do not get there within the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from common.cutoff import first_crossing
from common.errors import NoHealthError, QuestionError
from common.estimate import Estimate, wandered_states
from common.health import usable_when_new
from common.manifest import Health, Manifest
from common.model import VoltageModel
from common.sampling import (
    LEVEL,
    SAMPLES,
    Interval,
    drawn_batteries,
    interval_of,
    median,
    standard_normals,
    thetas_of,
)

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

STEPS: Final = 40
MAX_SPREAD: Final = 1e6
"""Of a mileage, the relative standard deviation above which it says no less."""
MAX_DAYS: Final = 1e9
"""A crossing that is further off is none."""
_TINY: Final = 1e-300


@dataclass(frozen=True)
class Mileage:
    """By how much the odometer grows in a day, with the standard deviation of that mean."""

    per_day: float
    std: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """When health falls to `threshold`: `odometer`, and `days` from the estimate's odometer on.

    The value is the median over the paths. `below_share` of them are there already,
    `never_share` do not get there within `horizon` (in odometer units from here on).
    `days` is None without a mileage.
    """

    threshold: float
    horizon: float
    odometer: Interval
    days: Interval | None
    below_share: float
    never_share: float

    @property
    def is_below(self) -> bool:
        """Whether it is more likely than not that health is below the threshold already."""
        return self.below_share >= 0.5  # noqa: PLR2004


def forecast(  # noqa: PLR0913  # what is looked at, and how far
    estimate: Estimate,
    threshold: float,
    horizon: float,
    model: VoltageModel,
    manifest: Manifest,
    rng: np.random.Generator,
    mileage: Mileage | None = None,
    level: float = LEVEL,
) -> Forecast:
    """The first crossing of `threshold` along paths of (theta, rate) over `horizon`.

    Each path begins at a draw from the estimate, goes on with the process noise, and keeps its
    draw of the model's discrepancy. Raises QuestionError, NoHealthError.
    """
    _check(threshold, horizon, mileage)
    sweep, new = manifest.health, usable_when_new(model, manifest)
    if sweep is None or new is None:
        raise NoHealthError("without a new battery that gets empty there is no threshold")
    grid = horizon * (np.arange(STEPS + 1) / STEPS) ** 2  # finest where it is known best
    crossing = _first_below(threshold * new, estimate, grid, sweep, model, manifest, rng)
    at = crossing + estimate.odometer
    return Forecast(
        threshold=threshold,
        horizon=horizon,
        odometer=interval_of(median(at), at, manifest.odometer_unit, level),
        days=_days(crossing, mileage, rng, level) if mileage else None,
        below_share=float((crossing == 0).mean()),
        never_share=float(np.isinf(crossing).mean()),
    )


def _check(threshold: float, horizon: float, mileage: Mileage | None) -> None:
    if not 0 < threshold < 1:
        raise QuestionError("threshold", "must lie between 0 and 1")
    if not 0 < horizon < math.inf:
        raise QuestionError("horizon", "must be positive and finite")
    if mileage and not (0 < mileage.per_day < math.inf and 0 <= mileage.std < math.inf):
        raise QuestionError("mileage", "needs a positive mean and a standard deviation from 0 up")


def _first_below(
    level: float,
    estimate: Estimate,
    grid: FloatArray,
    sweep: Health,
    model: VoltageModel,
    manifest: Manifest,
    rng: np.random.Generator,
) -> FloatArray:
    """How far on each path [N] first gives no more than `level`, linear between grid points.

    Infinity where it does not get there. A path that is there is followed no further.
    """
    drawn = drawn_batteries(estimate, manifest, rng)

    def usable(paths: Indices) -> FloatArray:
        thetas = thetas_of(drawn, manifest)[paths]
        found = first_crossing(thetas, sweep, model, manifest, drawn.discrepancy_v[paths])
        return np.where(np.isinf(found), sweep.stop, found)

    crossing = np.full(SAMPLES, np.inf)
    paths = np.arange(SAMPLES)
    before = usable(paths)
    crossing[before <= level] = 0.0
    paths, before = paths[before > level], before[before > level]
    for start, end in pairwise(grid.tolist()):
        noise = standard_normals(rng, *drawn.states.shape)
        moved = wandered_states(drawn.states, estimate, manifest, end - start, noise)
        drawn = replace(drawn, states=moved)
        now = usable(paths)
        below = now <= level
        share = (before - level)[below] / (before - now)[below]
        crossing[paths[below]] = start + share * (end - start)
        paths, before = paths[~below], now[~below]
    return crossing


def _days(
    crossing: FloatArray, mileage: Mileage, rng: np.random.Generator, level: float
) -> Interval:
    """Days [N] until each crossing, each path with a mileage of its own.

    Log-normal with the given mean and standard deviation: a vehicle does not drive backwards.
    Infinity beyond MAX_DAYS.
    """
    variance = math.log1p(min(mileage.std / mileage.per_day, MAX_SPREAD) ** 2)
    normals = standard_normals(rng, len(crossing), 1)[:, 0]
    per_day = mileage.per_day * np.exp(math.sqrt(variance) * normals - variance / 2)
    days = crossing / np.maximum(per_day, _TINY)
    days[days > MAX_DAYS] = np.inf
    return interval_of(median(days), days, "d", level)
