"""Samples of what a battery may be like, and the 95 % interval of what is read off them.

Pure; randomness is passed in. Must never give an end of an interval that no sample reached: an end
beyond what was looked at is open (None).

Samples instead of sigma points, since a crossing of the cut-off is a skewed quantity: two moments
would give an interval that is symmetric and, on one side, wrong. The quantiles of the samples are
right whatever the distribution; the draws are a Latin hypercube (M. D. McKay, R. J. Beckman, W. J.
Conover, Technometrics 21, 1979), so that a thousand suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from common.estimate import Estimate, bounded_theta, discrepancy_of, drawn_states
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]

LEVEL: Final = 0.95
SAMPLES: Final = 1024


@dataclass(frozen=True)
class Interval:
    """A value with its standard deviation and the ends of its interval at `level`.

    None is unknown: a value or an end that lies beyond what was looked at (the end is open), and
    the standard deviation of what has an open end.
    """

    value: float | None
    std: float | None
    low: float | None
    high: float | None
    unit: str
    level: float = LEVEL


@dataclass(frozen=True)
class Batteries:
    """N batteries that the vehicle's may be: free numbers and rates [N, 2P], and two misfits.

    What the model gets wrong of a battery stays the same along a sweep, a trip and a life: a
    voltage [N] that is added to the prediction, and what parameters [N, P] take where the voltage
    is steep (the manifest's `point_std`: a quantity is read at one point of the curve).
    """

    states: FloatArray
    discrepancy_v: FloatArray
    point: FloatArray


def drawn_batteries(
    estimate: Estimate, manifest: Manifest, rng: np.random.Generator, count: int = SAMPLES
) -> Batteries:
    """Drawn from the estimate where it stands; extrapolate it first to look elsewhere."""
    width = 2 * len(estimate.theta)
    normals = standard_normals(rng, count, width + 1 + len(estimate.theta))
    return Batteries(
        states=drawn_states(estimate, manifest, normals[:, :width]),
        discrepancy_v=discrepancy_of(estimate, manifest).std_v * normals[:, width],
        point=normals[:, width + 1 :] * [p.point_std for p in manifest.parameters],
    )


def thetas_of(batteries: Batteries, manifest: Manifest) -> FloatArray:
    """Their parameters [N, P], as the model takes them."""
    count = len(manifest.parameters)
    return bounded_theta(batteries.states[:, :count] + batteries.point, manifest)


def standard_normals(rng: np.random.Generator, count: int, dimensions: int) -> FloatArray:
    """A Latin hypercube [count, dimensions] of standard normals: each column is stratified."""
    column = np.array(_normal_quantiles(count))
    return rng.permuted(np.tile(column[:, None], (1, dimensions)), axis=0)


def interval_of(value: float, samples: FloatArray, unit: str, level: float = LEVEL) -> Interval:
    """`value` with the spread of `samples` [N]; infinity means beyond what was looked at."""
    ordered = np.sort(samples)
    outside = (1 - level) / 2
    low, high = (_finite(_quantile(ordered, share)) for share in (outside, 1 - outside))
    return Interval(
        value=_finite(value),
        std=None if high is None else float(ordered[np.isfinite(ordered)].std()),
        low=low,
        high=high,
        unit=unit,
        level=level,
    )


def median(samples: FloatArray) -> float:
    """The median of samples of which some may be infinite."""
    return _quantile(np.sort(samples), 0.5)


def _quantile(ordered: FloatArray, share: float) -> float:
    """Without interpolation: between a number and infinity there is nothing to interpolate."""
    return float(ordered[min(max(math.ceil(share * len(ordered)) - 1, 0), len(ordered) - 1)])


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@cache
def _normal_quantiles(count: int) -> tuple[float, ...]:
    normal = NormalDist()
    return tuple(normal.inv_cdf((i + 0.5) / count) for i in range(count))
