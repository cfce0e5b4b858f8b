"""Figures of merit: errors, updates, consistency against chi-square, coverage. Pure.

NIS and NEES: Y. Bar-Shalom, X. R. Li, T. Kirubarajan, "Estimation with Applications to Tracking and
Navigation", 2001, section 5.4. Must never see a method: arrays in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

from bench.offline_loop import Driven
from bench.science.spread import Figures

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FIRST_TRIPS = 10  # learning: they count in the updates, not in the mean error
LEVELS = (0.5, 0.9, 0.95)
QUARTILES = 4


def loop_figures(lives: Sequence[Driven], threshold_v: float) -> Figures:
    """What a method did to the trips of all vehicles."""
    return {
        "error_v": mean_error_v(lives),
        "updates_per_1000": updates_per_1000(lives),
        "unseen_per_1000": unseen_per_1000(lives, threshold_v),
    }


def mean_error_v(lives: Sequence[Driven]) -> float:
    """Mean over all trips but the first ten of each vehicle."""
    return float(np.mean(np.concatenate([life.error_v[FIRST_TRIPS:] for life in lives])))


def updates_per_1000(lives: Sequence[Driven]) -> float:
    """Trips that brought an update, of 1,000 trips, the first ten included."""
    return 1000.0 * float(np.mean(np.concatenate([life.updated for life in lives])))


def unseen_per_1000(lives: Sequence[Driven], threshold_v: float) -> float:
    """Breaches unseen, of 1,000 trips.

    A trip counts when the error against the voltage without noise exceeds the threshold and no
    update followed: either noise hid it from the vehicle, or what the method proposed was refused.
    """
    unseen = [(life.true_error_v > threshold_v) & ~life.updated for life in lives]
    return 1000.0 * float(np.mean(np.concatenate(unseen)))


def chi_square_interval(
    degrees: npt.ArrayLike, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """The central interval that holds `level` of a chi-square variable."""
    tail = (1.0 - level) / 2.0
    return np.asarray(chi2.ppf(tail, degrees)), np.asarray(chi2.ppf(1.0 - tail, degrees))


def share_inside(values: FloatArray, degrees: npt.ArrayLike, level: float = 0.95) -> float:
    """Share of the values inside their chi-square interval; NaN values do not count."""
    known = np.isfinite(values)
    low, high = chi_square_interval(np.broadcast_to(degrees, values.shape)[known], level)
    inside = (values[known] >= low) & (values[known] <= high)
    return float(inside.mean()) if known.any() else float("nan")


def consistency(values: FloatArray, degrees: npt.ArrayLike) -> Figures:
    """Share inside the 95 % interval, and the mean per degree of freedom (1 where consistent)."""
    known = np.isfinite(values)
    each = np.broadcast_to(degrees, values.shape)
    mean = float((values[known] / each[known]).mean()) if known.any() else float("nan")
    return {"inside_95": share_inside(values, degrees), "per_degree": mean}


def nees(mean: FloatArray, covariance: FloatArray, truth: FloatArray) -> float:
    """(x - x_true)' P^-1 (x - x_true)."""
    error = mean - truth
    return float(error @ np.linalg.solve(covariance, error))


@cache
def half_width(level: float) -> float:
    """Of the central normal band of `level`, in standard deviations."""
    return float(norm.ppf(0.5 + level / 2.0))


def inside_band(truth: FloatArray, mean: FloatArray, std: FloatArray, level: float) -> BoolArray:
    """Which of the truths lie inside the central normal band of `level`."""
    inside: BoolArray = np.abs(truth - mean) <= half_width(level) * std
    return inside


def by_quartile(values: FloatArray) -> list[float]:
    """Mean [4] over the quarters of life of values [vehicles, trips]."""
    parts = np.array_split(values, QUARTILES, axis=1)
    return [float(np.nanmean(part)) if np.isfinite(part).any() else float("nan") for part in parts]


def coverage_figures(shares: dict[float, FloatArray]) -> Figures:
    """Coverage by level, all ages and by quarter of life, of shares [vehicles, trips] inside."""
    found: Figures = {}
    for level, share in shares.items():
        name = f"inside_{round(100 * level)}"
        found[name] = float(np.nanmean(share))
        for quarter, value in enumerate(by_quartile(share), start=1):
            found[f"{name}_quarter_{quarter}"] = value
    return found


def error_figures(errors: FloatArray, unit: str) -> Figures:
    """Mean and 95th percentile of absolute errors, NaN left out."""
    known = np.abs(errors[np.isfinite(errors)])
    if not len(known):
        return {}
    return {f"mean_{unit}": float(known.mean()), f"p95_{unit}": float(np.quantile(known, 0.95))}
