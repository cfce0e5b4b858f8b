"""Tell a battery that changed from a sensor that lies.

Pure. Must never repair a trace: evidence is believed or refused, and the reason is said in words.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.manifest import Manifest
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

# A fit whose misfit is five times what noise and discrepancy explain is no fit.
MOST_MISFIT: Final = 25.0
# Standard normal quantile of one in a million: no drift that the prior allows goes so far.
JUMP_QUANTILE: Final = 4.75
STUCK_POINTS: Final = 8
# Of noise standard deviations: a voltage that moves less than one while the model moves by many.
STUCK_BELOW: Final = 0.5
MOVING_ABOVE: Final = 10.0


def problem(
    trace: TraceArrays, residual: FloatArray, discrepancy_v: float, manifest: Manifest
) -> str:
    """Why no parameters explain this trace, given the residual [m] of the best; empty if they do.

    What leaves the error below the threshold is explained, whatever else it is.
    """
    stuck = _stuck(trace, residual, manifest)
    if stuck:
        return stuck
    error_v = float(np.abs(residual).mean())
    expected = manifest.measurement_noise_std_v**2 + discrepancy_v**2
    misfit = float(np.square(residual).mean()) / expected
    if error_v <= manifest.error_threshold_v or misfit <= MOST_MISFIT:
        return ""
    return (
        f"no parameters explain this trip: the best leave {error_v:.4f} V, "
        f"{np.sqrt(misfit):.1f} times the noise and discrepancy (a sensor that lies, or conditions "
        f"that the model does not know)"
    )


def is_a_jump(shift: float, states: int) -> bool:
    """Whether a Mahalanobis distance squared is beyond the chi-square quantile of one in a million.

    E. B. Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 17, 1931.
    """
    part = 2.0 / (9.0 * states)
    quantile: float = states * (1.0 - part + JUMP_QUANTILE * part**0.5) ** 3
    return shift > quantile


def _stuck(trace: TraceArrays, residual: FloatArray, manifest: Manifest) -> str:
    """A voltage that stands still on the longest part of a trip on which it had to move."""
    noise_v = manifest.measurement_noise_std_v
    measured = trace.voltage_v
    if len(measured) < STUCK_POINTS:
        return ""
    half = len(measured) // 2
    predicted = measured - residual
    for part in (slice(None), slice(half, None)):
        still = float(np.ptp(measured[part])) < STUCK_BELOW * noise_v
        if still and float(np.ptp(residual[part])) > MOVING_ABOVE * noise_v:
            moved = float(np.ptp(predicted[part]))
            return (
                f"the voltage sensor is stuck at {measured[-1]:.4g} V while the model moves by "
                f"{moved:.3g} V"
            )
    return ""
