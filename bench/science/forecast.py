"""Health as an estimate claims it, now and where it will fall to a level: the product's own code.

Pure but for the model call; seeded, so that the same estimate claims the same. Must never see the
truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common import forecast as product
from common.calibration import Estimate, extrapolate
from common.errors import CalibrationError
from common.health import state_of_health
from common.manifest import Manifest
from common.model import VoltageModel

# (estimate, manifest) -> odometer of the crossing, and its 95 % interval.
Forecast = Callable[[Estimate, Manifest], tuple[float, float, float]]

HORIZON = 4.0  # of the odometer at the forecast; what crosses later is said to cross there
SAMPLES = 256  # fewer than the product draws: there are thousands of claims


@dataclass(frozen=True)
class Claim:
    """Health and usable range with their standard deviations."""

    ratio: float
    std: float
    usable: float
    usable_std: float


def crossing_forecast(model: VoltageModel, level: float) -> Forecast:
    """Where health falls to `level`, with the ends that are open at the horizon."""

    def forecast(estimate: Estimate, manifest: Manifest) -> tuple[float, float, float]:
        horizon = HORIZON * max(estimate.odometer, 1.0)
        rng = np.random.default_rng(0)
        found = product.forecast(estimate, level, horizon, model, manifest, rng).odometer
        end = estimate.odometer + horizon
        ends = (found.value, found.low, found.high)
        middle, low, high = (end if value is None else value for value in ends)
        return middle, low, high

    return forecast


def health_at(
    estimate: Estimate, odometer: float, model: VoltageModel, manifest: Manifest
) -> Claim | None:
    """Health by the estimate at a later odometer; None where it cannot be read."""
    there = extrapolate(estimate, manifest, odometer)
    try:
        found = state_of_health(there, model, manifest, np.random.default_rng(0), SAMPLES)
    except (CalibrationError, np.linalg.LinAlgError):
        return None
    if found is None:
        return None
    ends = (found.ratio.value, found.ratio.std, found.usable.value, found.usable.std)
    if any(value is None for value in ends):
        return None
    return Claim(*(float(value) for value in ends if value is not None))
