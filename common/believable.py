"""Whether an estimate can be one of a battery at all, before anything is computed with it.

A signature says who made a revision, not that its numbers are sane: a covariance that has a root
today may have none after an extrapolation, and a band of 1e30 V is no JSON that anybody takes.
Pure. Must never refuse what a calibration gives: the limits lie far beyond the manifest's widths.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from common.estimate import Estimate
from common.manifest import Manifest

WIDTHS: Final = 10.0  # of the range between a parameter's bounds
ROUNDING: Final = 1.0 + 1e-6


def disbelief(estimate: Estimate, manifest: Manifest) -> str | None:
    """What is beyond every battery, None where nothing is."""
    width = np.array([p.upper - p.lower for p in manifest.parameters])
    largest = WIDTHS * np.concatenate([width, width])  # of a rate, in a unit of the odometer
    variance = np.diagonal(estimate.covariance)
    if not np.all(np.abs(estimate.rate) <= largest[len(width) :]):
        return "its ageing rates cross every bound within a unit of the odometer"
    if not np.all((variance >= 0) & (variance <= np.square(largest))):
        return "its standard deviations exceed every bound"
    std = np.sqrt(variance)  # also of the rates that the filter leaves out: they are extrapolated
    if not np.all(np.abs(estimate.covariance) <= ROUNDING * np.outer(std, std)):
        return "its covariances exceed what its variances allow"
    own = estimate.discrepancy
    if own is not None and not own.std_v <= manifest.target.maximum - manifest.target.minimum:
        return f"its model discrepancy is {own.std_v:g} V"
    return None
