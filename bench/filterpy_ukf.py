"""filterpy's unscented filter on a breach trace, as it ships: the peer of every comparison.

Must never be tuned: alpha 1, beta 2, kappa 0, P = Q = R = 1e-4 are the published settings
(aws-samples/aws-do-pm), where one breach is 40 sweeps over the same points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter

from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

SWEEPS = 40
VARIANCE = 1e-4
ALPHA, BETA, KAPPA = 1.0, 2.0, 0.0


def filterpy_update(
    theta: FloatArray, trace: TraceArrays, model: VoltageModel, sweeps: int
) -> tuple[FloatArray, FloatArray]:
    """theta [P] and its covariance [P, P] after `sweeps` predictions and updates on the trace."""
    count, points = len(theta), len(trace.time_s)
    sigma = MerweScaledSigmaPoints(count, alpha=ALPHA, beta=BETA, kappa=KAPPA)
    ukf: Any = UnscentedKalmanFilter(
        count, points, 1.0, lambda x: model.predict(trace.features, x), lambda x, _dt: x, sigma
    )
    ukf.x = theta.copy()
    ukf.P, ukf.Q, ukf.R = (np.eye(size) * VARIANCE for size in (count, count, points))
    for _ in range(sweeps):
        ukf.predict()
        ukf.update(trace.voltage_v)
    return ukf.x, ukf.P
