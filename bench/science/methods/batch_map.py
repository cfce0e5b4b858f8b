"""Batch maximum a posteriori over the last breach traces: least squares with the prior as a row.

minimise |x - x0|^2_P + sum_k |z_k - h(theta(s_k))|^2_R over x = (theta, rate) at the newest
odometer s, theta(s_k) by the law of ageing backwards; Levenberg-Marquardt (J. J. More, "The
Levenberg-Marquardt algorithm: implementation and theory", 1978; scipy's MINPACK) with central
differences through the same .tflite. The prior is the manifest's own, extrapolated to s: a window
without memory of what left it. Pure but for the model call. Must never hold more than `window`
traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from bench.offline_loop import Breach, Method, Update
from bench.science.methods.common_ground import (
    active_of,
    is_accepted,
    jacobian,
    packed,
    transition,
    unpacked,
    whitening,
)
from common.calibration import Estimate, extrapolate
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

EVALUATIONS = 30


@dataclass(frozen=True)
class Window:
    """The newest estimate, the prior before the first trip, and the last (odometer, trace)."""

    estimate: Estimate
    prior: Estimate
    seen: tuple[tuple[float, TraceArrays], ...]


def batch_map(model: VoltageModel, manifest: Manifest, window: int) -> Method[Window]:
    """The method as the loop takes it: the last `window` traces, the newest among them."""

    def one(breach: Breach[Window]) -> Update[Window] | None:
        state = breach.state
        seen = (*state.seen, (breach.odometer, breach.trace))[-window:]
        start = extrapolate(state.estimate, manifest, breach.odometer)
        prior = extrapolate(state.prior, manifest, breach.odometer)
        found = most_probable(start, prior, seen, model, manifest)
        if not is_accepted(found, state.estimate, breach.trace, model, manifest):
            return None
        return Update(Window(found, state.prior, seen))

    return Method(
        "batch MAP",
        manifest,
        lambda prior: Window(prior, prior, ()),
        lambda state: state.estimate,
        lambda breaches: [one(breach) for breach in breaches],
    )


def most_probable(
    start: Estimate,
    prior: Estimate,
    seen: Sequence[tuple[float, TraceArrays]],
    model: VoltageModel,
    manifest: Manifest,
) -> Estimate:
    """The mode at the odometer of `start`, with the inverse of J'J as covariance."""
    active, count = active_of(manifest), len(manifest.parameters)
    x0, P0 = packed(prior, active)
    root_information = np.linalg.inv(np.linalg.cholesky(P0))

    def rows(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        residuals, slopes = [root_information @ (x - x0)], [root_information]
        for odometer, trace in seen:
            W = whitening(len(trace.time_s), manifest)
            F, _ = transition(manifest, start.rate, start.odometer - odometer)
            back = np.linalg.inv(F)[:count, active]
            voltage, slope = jacobian(back @ x, trace.features, model, manifest)
            residuals.append(W @ (voltage - trace.voltage_v))
            slopes.append(W @ slope @ back)
        return np.concatenate(residuals), np.concatenate(slopes)

    scale = np.sqrt(np.diagonal(P0))
    found = least_squares(
        lambda x: rows(x)[0],
        packed(start, active)[0],
        jac=lambda x: rows(x)[1],
        method="lm",
        x_scale=scale,
        max_nfev=EVALUATIONS,
    )
    P = np.linalg.inv(found.jac.T @ found.jac)
    return unpacked(found.x, P, active, count, start.odometer)
