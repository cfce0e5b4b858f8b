"""Calibrate a vehicle's parameters and ageing rates on a breach trace, and extrapolate them.

State: (theta, rate) with theta(s) = theta_0 + rate * (s - s_0) over the odometer s. Pure: numpy in,
numpy out; the model is the bundle's own. Must never read a clock, a file or a socket: the vehicle
and the cloud run the very same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from common import ukf
from common.bundle_filter import BundleFilter, Evidence, Settings
from common.errors import CalibrationError
from common.estimate import (
    Estimate,
    estimate_of,
    extrapolate,
    is_inside_bounds,
    is_positive_definite,
    pack,
    prior,
    unpack,
    upper_triangle,
)
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

__all__ = [
    "Calibrated",
    "Estimate",
    "Settings",
    "calibrate",
    "estimate_of",
    "extrapolate",
    "is_inside_bounds",
    "is_positive_definite",
    "mean_absolute_error",
    "prior",
    "upper_triangle",
    "voltage_band",
]

FloatArray = npt.NDArray[np.float64]

STARTS = 60
START_SPAN = 3.0  # prior standard deviations to either side
START_SHARE = 0.1  # spread of the first linearisation around a start, in prior standard deviations


@dataclass(frozen=True)
class Calibrated:
    """A posterior, the prior's NIS over `points` measurements, the trace's mean absolute errors.

    `reopened`: the prior could not explain the trace, and was opened to the manifest's own width.
    """

    estimate: Estimate
    nis: float
    points: int
    error_before_v: float
    error_after_v: float
    reopened: bool


def calibrate(
    priors: Sequence[Estimate],
    traces: Sequence[TraceArrays],
    odometers: Sequence[float],
    model: VoltageModel,
    manifest: Manifest,
    settings: Settings,
) -> list[Calibrated]:
    """One UKF update of each vehicle on its trace; one model call for all of equal length.

    Raises CalibrationError when the prior is not positive definite or the result not finite.
    """
    filter_ = BundleFilter(model, manifest, settings)
    groups: dict[int, list[int]] = {}
    for index, trace in enumerate(traces):
        groups.setdefault(len(trace.time_s), []).append(index)
    results: dict[int, Calibrated] = {}
    for members in groups.values():
        at = [extrapolate(priors[i], manifest, odometers[i]) for i in members]
        updated = _calibrate_group(at, [traces[i] for i in members], filter_)
        results.update(zip(members, updated, strict=True))
    return [results[index] for index in range(len(traces))]


def voltage_band(
    estimate: Estimate,
    features: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
    settings: Settings,
) -> tuple[FloatArray, FloatArray]:
    """Predicted voltage [m] and the standard deviation [m] of what the BMS will measure, volts.

    Parameter uncertainty through the sigma points, plus discrepancy and measurement noise.
    """
    filter_ = BundleFilter(model, manifest, settings)
    sigmas = filter_.sigma_points(*pack([estimate], filter_.active))
    voltages = filter_.images(sigmas, features[None])
    _, spread = ukf.unscented_moments(voltages, filter_.weights)
    own = manifest.measurement_noise_std_v**2 + manifest.model_discrepancy_std_v**2
    return voltages[0, 0], np.sqrt(spread[0] ** 2 + own)


def mean_absolute_error(theta: FloatArray, trace: TraceArrays, model: VoltageModel) -> float:
    """Mean absolute error in volts of the model at `theta` [P] over the trace."""
    return float(np.abs(model.predict(trace.features, theta) - trace.voltage_v).mean())


def _calibrate_group(
    priors: Sequence[Estimate], traces: Sequence[TraceArrays], filter_: BundleFilter
) -> list[Calibrated]:
    evidence = filter_.evidence(traces)
    x, P = pack(priors, filter_.active)
    first = filter_.first_pass(x, P, evidence)
    posterior = filter_.refine(x, P, first.posterior, evidence)
    after = filter_.error_v(posterior.x, evidence)
    if not (np.isfinite(posterior.x).all() and np.isfinite(posterior.P).all()):
        raise CalibrationError("the update gave a number that is not finite")
    results = []
    for i, prior_i in enumerate(priors):
        found = Calibrated(
            estimate=unpack(posterior.x[i], posterior.P[i], filter_.active, prior_i),
            nis=float(first.nis[i]),
            points=evidence.z.shape[1],
            error_before_v=float(first.error_before_v[i]),
            error_after_v=float(after[i]),
            reopened=False,
        )
        results.append(_reopen_if_missed(found, prior_i, traces[i], filter_))
    return results


def _reopen_if_missed(
    found: Calibrated, before: Estimate, trace: TraceArrays, filter_: BundleFilter
) -> Calibrated:
    """When even the posterior breaches on its own trace, the prior was wrong about this battery.

    Its uncertainty is opened to the manifest's prior around where it stood, and the search begins
    from the best of many points spread over it: near a steep end of discharge the error has
    several valleys, and the filter alone stays in the one it stands in. Kept only when the error
    is lower.
    """
    explained = found.error_after_v <= filter_.manifest.error_threshold_v
    if explained or filter_.settings.passes == 1:
        return found
    opened = replace(before, covariance=prior(filter_.manifest).covariance)
    evidence = filter_.evidence([trace])
    x, P = pack([opened], filter_.active)
    start = ukf.Posterior(_best_start(x, P, evidence, filter_), START_SHARE**2 * P, x, x)
    posterior = filter_.refine(x, P, start, evidence)
    error_v = float(filter_.error_v(posterior.x, evidence)[0])
    if not (np.isfinite(posterior.P).all() and error_v < found.error_after_v):
        return found
    estimate = unpack(posterior.x[0], posterior.P[0], filter_.active, opened)
    return replace(found, estimate=estimate, error_after_v=error_v, reopened=True)


def _best_start(
    x: FloatArray, P: FloatArray, evidence: Evidence, filter_: BundleFilter
) -> FloatArray:
    """Of x and STARTS points spread over N(x, P), the one with the lowest error, [1, n]."""
    spread = np.random.default_rng(0).uniform(-START_SPAN, START_SPAN, (STARTS, x.shape[1]))
    starts: FloatArray = np.concatenate([x, x + spread * np.sqrt(np.diagonal(P[0]))])
    images = filter_.images(starts[None], evidence.features)[0]
    best = int(np.abs(images - evidence.z).mean(axis=1).argmin())
    return starts[best : best + 1]
