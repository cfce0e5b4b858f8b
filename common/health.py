"""State of health: where the predicted voltage falls to the cut-off, relative to when new.

Pure. Must never report a number without its standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common import ukf
from common.calibration import Estimate, Settings
from common.manifest import Health, Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

SWEEP_POINTS = 600


@dataclass(frozen=True)
class StateOfHealth:
    """Ratio to new (1 = as new) with its standard deviation; `usable` in the swept unit."""

    ratio: float
    std: float
    usable: float


def state_of_health(
    estimate: Estimate, model: VoltageModel, manifest: Manifest, settings: Settings
) -> StateOfHealth | None:
    """Health at the estimate, its spread by the sigma points; None without a health section."""
    health = manifest.health
    if health is None:
        return None
    count = len(manifest.parameters)
    weights = ukf.merwe_weights(count, settings.alpha, settings.beta, settings.kappa)
    P = estimate.covariance[:count, :count]
    thetas = ukf.sigma_points(estimate.theta[None], P[None], weights)[0]
    nominal = np.array([[p.nominal for p in manifest.parameters]])
    usable = usable_until_cutoff(np.concatenate([nominal, thetas]), health, model, manifest)
    _, std = ukf.unscented_moments(usable[None, 1:, None] / usable[0], weights)
    return StateOfHealth(float(usable[1] / usable[0]), float(std[0, 0]), float(usable[1]))


def usable_until_cutoff(
    thetas: FloatArray, health: Health, model: VoltageModel, manifest: Manifest
) -> FloatArray:
    """First value [T] of the swept feature at which each theta [T, P] predicts the cut-off.

    Linear between grid points; the sweep's stop where the cut-off is never reached.
    """
    grid = np.linspace(health.start, health.stop, SWEEP_POINTS)
    reference = [health.reference.get(name, 0.0) for name in manifest.feature_names]
    features = np.tile(reference, (SWEEP_POINTS, 1))
    features[:, manifest.feature_names.index(health.swept_feature)] = grid
    rows = np.tile(features, (len(thetas), 1))
    voltages = model.predict(rows, np.repeat(thetas, SWEEP_POINTS, axis=0))
    return np.array(
        [_crossing(grid, v, manifest.cutoff_voltage_v) for v in voltages.reshape(len(thetas), -1)]
    )


def _crossing(grid: FloatArray, voltage: FloatArray, cutoff: float) -> float:
    below = voltage <= cutoff
    if not below.any():
        return float(grid[-1])
    i = int(below.argmax())
    if i == 0:
        return float(grid[0])
    share = (voltage[i - 1] - cutoff) / (voltage[i - 1] - voltage[i])
    return float(grid[i - 1] + share * (grid[i] - grid[i - 1]))
