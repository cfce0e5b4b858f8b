"""Tell a battery that changed from a sensor that lies.

Pure. Must never repair a trace: evidence is believed or refused, and the reason is said in words.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.discrepancy import point_variance
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A fit whose misfit is five times what noise and discrepancy explain is no fit.
MOST_MISFIT: Final = 25.0
# Standard normal quantile of one in a million: no drift that the prior allows goes so far.
JUMP_QUANTILE: Final = 4.75
STUCK_POINTS: Final = 8
# Of noise standard deviations: a voltage that moves less than one while the model moves by many.
STUCK_BELOW: Final = 0.5
MOVING_ABOVE: Final = 10.0


def problems(
    measured_v: FloatArray, residual: FloatArray, discrepancy_v: FloatArray, manifest: Manifest
) -> list[str]:
    """Why no parameters explain these traces [B, m], given what the best leave; empty if they do.

    What leaves the error below the threshold is explained, whatever else it is.
    """
    found = _stuck(measured_v, residual, manifest)
    points = measured_v.shape[1]
    errors_v = np.abs(residual).sum(axis=1) / points
    breaching = errors_v > manifest.error_threshold_v
    if not breaching.any():
        return found
    expected = point_variance(manifest.measurement_noise_std_v, discrepancy_v)
    misfit = np.square(residual).sum(axis=1) / points / expected
    for i in np.flatnonzero(breaching & (misfit > MOST_MISFIT)):
        found[i] = found[i] or (
            f"no parameters explain this trip: the best leave {errors_v[i]:.4f} V, "
            f"{np.sqrt(misfit[i]):.1f} times the noise and discrepancy (a sensor that lies, or "
            f"conditions that the model does not know)"
        )
    return found


def are_jumps(shift: FloatArray, states: int) -> BoolArray:
    """Which Mahalanobis distances squared are beyond chi-square's quantile of one in a million.

    E. B. Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 17, 1931.
    """
    part = 2.0 / (9.0 * states)
    quantile: float = states * (1.0 - part + JUMP_QUANTILE * part**0.5) ** 3
    return np.asarray(shift > quantile)


def _stuck(measured_v: FloatArray, residual: FloatArray, manifest: Manifest) -> list[str]:
    """A voltage that stands still on the longest part of a trip on which it had to move."""
    noise_v, points = manifest.measurement_noise_std_v, measured_v.shape[1]
    found = [""] * len(measured_v)
    if points < STUCK_POINTS:
        return found
    # What stands still all the way does so on its second half, too.
    late = measured_v[:, points // 2 :]
    still = late.max(axis=1) - late.min(axis=1) < STUCK_BELOW * noise_v
    for i in np.flatnonzero(still):
        found[i] = _words_if_stuck(measured_v[i], residual[i], noise_v)
    return found


def _words_if_stuck(measured_v: FloatArray, residual: FloatArray, noise_v: float) -> str:
    for part in (slice(None), slice(len(measured_v) // 2, None)):
        still = np.ptp(measured_v[part]) < STUCK_BELOW * noise_v
        if still and np.ptp(residual[part]) > MOVING_ABOVE * noise_v:
            moved = np.ptp((measured_v - residual)[part])
            return (
                f"the voltage sensor is stuck at {measured_v[-1]:.4g} V while the model moves by "
                f"{moved:.3g} V"
            )
    return ""
