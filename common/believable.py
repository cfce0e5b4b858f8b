"""Whether an estimate can be one of a battery at all, before anything is computed with it.

A signature says who made a revision, not that its numbers are sane: a covariance that has a root
today may have none after an extrapolation, one of 1e-320 makes sigma points that coincide, and a
band of 1e30 V is no JSON that anybody takes. Pure. Must never refuse what a calibration gives: the
limits lie far beyond the manifest's.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.estimate import Estimate, is_inside_bounds, is_positive_definite
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]

# In ranges between a parameter's bounds; of a rate in a unit of the odometer.
WIDEST: Final = 10.0
SHARPEST: Final = 1e-9
ROUNDING: Final = 1.0 + 1e-6


def unfit(estimate: Estimate, manifest: Manifest) -> str | None:
    """Why parameters that nobody signed may not drive; None when they may."""
    if not (is_inside_bounds(estimate, manifest) and is_positive_definite(estimate, manifest)):
        return "its parameters are none"
    return disbelief(estimate, manifest)


def disbelief(estimate: Estimate, manifest: Manifest) -> str | None:
    """What is beyond every battery, None where nothing is."""
    width = np.array([p.upper - p.lower for p in manifest.parameters])
    if not np.all(np.abs(estimate.rate) <= WIDEST * width):
        return "its ageing rates cross every bound within a unit of the odometer"
    own, target = estimate.discrepancy, manifest.target
    if own is not None and not own.std_v <= target.maximum - target.minimum:
        return f"its model discrepancy is {own.std_v:g} V"
    return _of_the_covariance(estimate.covariance, width)


def _of_the_covariance(covariance: FloatArray, width: FloatArray) -> str | None:
    """`covariance` [2P, 2P] over (theta, rate), `width` [P] between the bounds."""
    variance, count = np.diagonal(covariance), len(width)
    widest = WIDEST * np.concatenate([width, width])
    if not np.all((variance >= 0) & (variance <= np.square(widest))):
        return "its standard deviations exceed every bound"
    std = np.sqrt(variance)  # also of the rates that the filter leaves out: they are extrapolated
    if not np.all(np.abs(covariance) <= ROUNDING * np.outer(std, std)):
        return "its covariances exceed what its variances allow"
    try:
        root = np.linalg.cholesky(covariance[:count, :count])
    except np.linalg.LinAlgError:
        return "its covariance is not positive definite"
    if not np.all(np.diagonal(root) >= SHARPEST * width):
        return "it claims to know a parameter better than any number can say"
    return None
