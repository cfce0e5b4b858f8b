"""What all peers share: active states, the model's Jacobian, the noise of a trace, the acceptance.

Pure but for the model call. Must never favour a method: the vehicle refuses a revision outside the
bounds, and one that does not lower the error on its own trace, whoever made it.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from common import ageing
from common.calibration import Estimate, aligned_error_v, extrapolate
from common.discrepancy import correlation
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

# Of a prior standard deviation: small against any curvature, large against float32 rounding.
STEP_SHARE = 0.02


def active_of(manifest: Manifest) -> IntArray:
    """Indices into (theta, rate) of the states that the manifest declares."""
    count = len(manifest.parameters)
    rates = [count + i for i, p in enumerate(manifest.parameters) if p.rate_prior_std > 0]
    return np.array([*range(count), *rates], dtype=np.intp)


def packed(estimate: Estimate, active: IntArray) -> tuple[FloatArray, FloatArray]:
    """Active states [n] and their covariance [n, n]."""
    x = np.concatenate([estimate.theta, estimate.rate])[active]
    return x, estimate.covariance[np.ix_(active, active)]


def unpacked(
    x: FloatArray, P: FloatArray, active: IntArray, count: int, odometer: float
) -> Estimate:
    """The estimate of active states [n] and covariance [n, n]; `count` parameters."""
    full, covariance = np.zeros(2 * count), np.zeros((2 * count, 2 * count))
    full[active] = x
    covariance[np.ix_(active, active)] = P
    return Estimate(full[:count], full[count:], covariance, odometer)


def jacobian(
    theta: FloatArray, features: FloatArray, model: VoltageModel, manifest: Manifest
) -> tuple[FloatArray, FloatArray]:
    """Voltage [m] and its derivative [m, P] at theta [P], by central differences."""
    steps = STEP_SHARE * np.array([p.prior_std for p in manifest.parameters])
    moved = np.concatenate([theta[None], theta + np.diag(steps), theta - np.diag(steps)])
    voltage = model.predict_crossed(features[None], moved[None])[0]
    count = len(theta)
    slopes = (voltage[1 : count + 1] - voltage[count + 1 :]) / (2.0 * steps[:, None])
    return voltage[0], slopes.T


def transition(manifest: Manifest, rate: FloatArray, ds: float) -> tuple[FloatArray, FloatArray]:
    """F and Q [2P, 2P] of (theta, rate) over ds >= 0, by the manifest's own law of ageing."""
    if ds == 0.0:
        size = 2 * len(rate)
        return np.eye(size), np.zeros((size, size))
    return ageing.transition(ageing.law_of(manifest), rate, ds)


def residual_covariance(points: int, manifest: Manifest) -> FloatArray:
    """R [m, m] as the filter has it: noise, and a discrepancy correlated along the trip."""
    along = correlation(points, manifest.discrepancy_correlation)
    C = np.eye(points) if along.axes is None else along.axes * along.variances @ along.axes.T
    noise, own = manifest.measurement_noise_std_v, manifest.model_discrepancy_std_v
    found: FloatArray = noise**2 * np.eye(points) + own**2 * C
    return found


@lru_cache(maxsize=64)
def _whitening(points: int, noise: float, discrepancy: float, share: float) -> FloatArray:
    along = correlation(points, share)
    axes = np.eye(points) if along.axes is None else along.axes
    root = np.sqrt(noise**2 + discrepancy**2 * along.variances)
    return np.asarray((axes / root).T)


def whitening(points: int, manifest: Manifest) -> FloatArray:
    """W [m, m] with W R W' = I."""
    return _whitening(
        points,
        manifest.measurement_noise_std_v,
        manifest.model_discrepancy_std_v,
        manifest.discrepancy_correlation,
    )


def is_accepted(
    proposed: Estimate,
    before: Estimate,
    trace: TraceArrays,
    model: VoltageModel,
    manifest: Manifest,
) -> bool:
    """Whether the vehicle would apply it: finite, inside the bounds, a lower error on the trace."""
    lower = np.array([p.lower for p in manifest.parameters])
    upper = np.array([p.upper for p in manifest.parameters])
    theta = proposed.theta
    finite = np.isfinite(theta).all() and np.isfinite(proposed.covariance).all()
    if not (finite and np.all((theta >= lower) & (theta <= upper))):
        return False
    there = extrapolate(before, manifest, proposed.odometer)
    after = aligned_error_v(proposed, trace, model, manifest)
    return after < aligned_error_v(there, trace, model, manifest)


def without_noise(manifest: Manifest) -> Manifest:
    """The same without process noise, for a method that forgets in another way."""
    return _with(manifest, process_noise=0.0, rate_process_noise=0.0, rate_volatility=0.0)


def without_rates(manifest: Manifest, process_noise: float | None = None) -> Manifest:
    """The parameters alone; `process_noise` per odometer unit where it shall change."""
    plain = _with(manifest, rate_prior_std=0.0, rate_process_noise=0.0, rate_volatility=0.0)
    return plain if process_noise is None else _with(plain, process_noise=process_noise)


def with_threshold(manifest: Manifest, threshold_v: float) -> Manifest:
    """The same loop at another threshold."""
    return msgspec.structs.replace(manifest, error_threshold_v=threshold_v)


def _with(manifest: Manifest, **changes: float) -> Manifest:
    parameters = [msgspec.structs.replace(p, **changes) for p in manifest.parameters]
    return msgspec.structs.replace(manifest, parameters=parameters)
