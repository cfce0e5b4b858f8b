"""What is known of one vehicle at one odometer: parameters, ageing rates, and their covariance.

Pure. Must never look at a measurement: how evidence moves an estimate is for the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.manifest import Manifest
from common.revision import Revision

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """theta [P] and rate [P] at `odometer`, covariance [2P, 2P] over (theta, rate).

    A rate that the manifest leaves out of the state is zero with zero rows in the covariance.
    """

    theta: FloatArray
    rate: FloatArray
    covariance: FloatArray
    odometer: float


def prior(manifest: Manifest, odometer: float = 0.0) -> Estimate:
    """The manifest's own prior: nominal parameters, no ageing, at `odometer`."""
    parameters = manifest.parameters
    variances = [p.prior_std**2 for p in parameters] + [p.rate_prior_std**2 for p in parameters]
    return Estimate(
        theta=np.array([p.nominal for p in parameters]),
        rate=np.zeros(len(parameters)),
        covariance=np.diag(variances),
        odometer=odometer,
    )


def extrapolate(estimate: Estimate, manifest: Manifest, odometer: float) -> Estimate:
    """The estimate at a later odometer: x = F x, P = F P F' + Q, exactly integrated white noise.

    Q of a random walk with a random-walk rate over ds (Bar-Shalom, Li, Kirubarajan, "Estimation
    with Applications to Tracking and Navigation", 2001, section 6.2.2). An earlier odometer gives
    the estimate unchanged: the battery does not grow younger. A parameter that drifts to its bound
    stays there.
    """
    ds = odometer - estimate.odometer
    if ds <= 0:
        return estimate
    count = len(estimate.theta)
    F = np.eye(2 * count)
    F[:count, count:] = np.eye(count) * ds
    return Estimate(
        theta=np.clip(estimate.theta + estimate.rate * ds, *_bounds(manifest)),
        rate=estimate.rate,
        covariance=F @ estimate.covariance @ F.T + _process_noise(manifest, ds),
        odometer=odometer,
    )


def is_inside_bounds(estimate: Estimate, manifest: Manifest) -> bool:
    """Whether every parameter lies inside the manifest's bounds, and everything is finite."""
    lower, upper = _bounds(manifest)
    finite = np.isfinite(estimate.covariance).all() and np.isfinite(estimate.rate).all()
    return bool(finite and np.all((estimate.theta >= lower) & (estimate.theta <= upper)))


def is_positive_definite(estimate: Estimate, manifest: Manifest) -> bool:
    """Whether the covariance over the active states can be one: sigma points need its root."""
    active = active_states(manifest)
    try:
        np.linalg.cholesky(estimate.covariance[np.ix_(active, active)])
    except np.linalg.LinAlgError:
        return False
    return True


def estimate_of(revision: Revision) -> Estimate:
    """The estimate that a revision carries."""
    states = 2 * len(revision.theta)
    P = np.zeros((states, states))
    P[np.triu_indices(states)] = revision.covariance
    return Estimate(
        theta=np.array(revision.theta),
        rate=np.array(revision.rate),
        covariance=P + np.triu(P, 1).T,
        odometer=revision.odometer,
    )


def upper_triangle(covariance: FloatArray) -> list[float]:
    """The covariance in a revision's wire form."""
    triangle: list[float] = covariance[np.triu_indices(len(covariance))].tolist()
    return triangle


def active_states(manifest: Manifest) -> npt.NDArray[np.intp]:
    """Indices into (theta, rate) of what the filter estimates: all theta, and declared rates."""
    count = len(manifest.parameters)
    rates = [count + i for i, p in enumerate(manifest.parameters) if p.rate_prior_std > 0]
    return np.array([*range(count), *rates], dtype=np.intp)


def pack(
    estimates: Sequence[Estimate], active: npt.NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """The active states [B, n] of B estimates, and their covariances [B, n, n]."""
    x = np.stack([np.concatenate([e.theta, e.rate])[active] for e in estimates])
    P = np.stack([e.covariance[np.ix_(active, active)] for e in estimates])
    return x, P


def unpack(
    x: FloatArray, P: FloatArray, active: npt.NDArray[np.intp], before: Estimate
) -> Estimate:
    """The estimate of active states [n] and covariance [n, n], at the odometer of `before`."""
    count = len(before.theta)
    full_x = np.zeros(2 * count)
    full_x[active] = x
    full_P = np.zeros((2 * count, 2 * count))
    full_P[np.ix_(active, active)] = P
    return Estimate(full_x[:count], full_x[count:], full_P, before.odometer)


def _bounds(manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    lower = np.array([p.lower for p in manifest.parameters])
    return lower, np.array([p.upper for p in manifest.parameters])


def _process_noise(manifest: Manifest, ds: float) -> FloatArray:
    q = np.array([p.process_noise for p in manifest.parameters])
    rated = np.array([p.rate_prior_std > 0 for p in manifest.parameters])
    q_rate = np.array([p.rate_process_noise for p in manifest.parameters]) * rated
    theta = np.arange(len(q))
    rate = theta + len(q)
    Q = np.zeros((2 * len(q), 2 * len(q)))
    Q[theta, theta] = q * ds + q_rate * ds**3 / 3
    Q[theta, rate] = Q[rate, theta] = q_rate * ds**2 / 2
    Q[rate, rate] = q_rate * ds
    return Q
