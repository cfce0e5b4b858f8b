"""The published method: filterpy's unscented filter swept 40 times over the trace of a breach.

The same equations for many vehicles at once, so that a life of trips takes seconds; a test holds
them to filterpy's own. P, Q and R are 1e-4 at every breach anew, and nothing drifts in between
(aws-samples/aws-do-pm). Must never be used for a time: the timing runs filterpy itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.filterpy_ukf import SWEEPS, VARIANCE
from bench.offline_loop import Breach, Method, Update
from bench.science.methods.common_ground import (
    active_of,
    is_accepted,
    packed,
    unpacked,
    without_noise,
    without_rates,
)
from common.calibration import Estimate
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]


def published(model: VoltageModel, manifest: Manifest, sweeps: int = SWEEPS) -> Method[Estimate]:
    """The method as the loop takes it."""
    plain = without_noise(without_rates(manifest))
    active = active_of(plain)

    def update(breaches: Sequence[Breach[Estimate]]) -> list[Update[Estimate] | None]:
        made: list[Update[Estimate] | None] = []
        for breach in breaches:
            theta, _ = packed(breach.state, active)
            x, P = swept(theta[None], [breach.trace], model, sweeps)
            found = unpacked(x[0], P[0], active, len(active), breach.odometer)
            accepted = is_accepted(found, breach.state, breach.trace, model, plain)
            made.append(Update(found) if accepted else None)
        return made

    return Method("published settings", plain, lambda e: e, lambda e: e, update)


def swept(
    theta: FloatArray, traces: Sequence[TraceArrays], model: VoltageModel, sweeps: int
) -> tuple[FloatArray, FloatArray]:
    """theta [B, n] and covariance [B, n, n] after the sweeps; traces of equal length.

    Sigma points of spread n with alpha 1, beta 2, kappa 0 (R. van der Merwe's scaled form): the
    central one weighs 0 in the mean and lies where it started, so only the pairs count; the m x m
    inversion is done in their space (matrix inversion lemma, R = r I).
    """
    features = np.stack([trace.features for trace in traces])
    z = np.stack([trace.voltage_v for trace in traces])
    n = theta.shape[1]
    x, P = theta.copy(), np.tile(VARIANCE * np.eye(n), (len(theta), 1, 1))
    mean = np.array([0.0] + [0.5 / n] * 2 * n)
    root = np.sqrt(np.array([2.0] + [0.5 / n] * 2 * n))[:, None]
    for _ in range(sweeps):
        columns = np.linalg.cholesky(n * (P + VARIANCE * np.eye(n))).swapaxes(-1, -2)
        X = np.concatenate([np.zeros_like(x)[:, None], columns, -columns], axis=1)
        images = model.predict_crossed(features, x[:, None] + X)
        expected = mean @ images
        Y = root * (images - expected[:, None]) / np.sqrt(VARIANCE)
        X_t = (root * X).swapaxes(-1, -2)
        inner = np.linalg.inv(np.eye(2 * n + 1) + Y @ Y.swapaxes(-1, -2))
        innovation = (z - expected)[..., None] / np.sqrt(VARIANCE)
        x = x + (X_t @ inner @ Y @ innovation)[..., 0]
        P = X_t @ inner @ X_t.swapaxes(-1, -2)
    return x, P
