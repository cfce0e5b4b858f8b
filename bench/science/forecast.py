"""Where health will cross a level, as the estimate itself sees it: the seam for a better forecast.

The estimate is extrapolated along the odometer, its health read off, and the crossings of health
and of its 95 % band are searched for by bisection. Pure but for the model call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from common.calibration import Estimate, Settings, extrapolate
from common.errors import CalibrationError
from common.health import StateOfHealth, state_of_health
from common.manifest import Manifest
from common.model import VoltageModel

# (estimate, manifest) -> odometer of the crossing, and its 95 % interval.
Forecast = Callable[[Estimate, Manifest], tuple[float, float, float]]

SIGMAS_95 = 1.96
HORIZON = 4.0  # of the odometer at the forecast; what crosses later is said to cross there
BISECTIONS = 14


def extrapolating_forecast(model: VoltageModel, level: float) -> Forecast:
    """The default forecast of where health falls to `level`."""

    def forecast(estimate: Estimate, manifest: Manifest) -> tuple[float, float, float]:
        def crossing(sigmas: float) -> float:
            low, high = estimate.odometer, max(HORIZON * estimate.odometer, 1.0)
            if _health(estimate, high, sigmas, model, manifest) > level:
                return high
            for _ in range(BISECTIONS):
                middle = 0.5 * (low + high)
                if _health(estimate, middle, sigmas, model, manifest) > level:
                    low = middle
                else:
                    high = middle
            return high

        return crossing(0.0), crossing(-SIGMAS_95), crossing(SIGMAS_95)

    return forecast


def health_at(
    estimate: Estimate, odometer: float, model: VoltageModel, manifest: Manifest
) -> StateOfHealth | None:
    """Health by the estimate at a later odometer; None where it cannot be read."""
    there = extrapolate(estimate, manifest, odometer)
    try:
        return state_of_health(there, model, manifest, Settings())
    except (CalibrationError, np.linalg.LinAlgError):
        return None


def _health(
    estimate: Estimate, odometer: float, sigmas: float, model: VoltageModel, manifest: Manifest
) -> float:
    found = health_at(estimate, odometer, model, manifest)
    return 0.0 if found is None else found.ratio + sigmas * found.std
