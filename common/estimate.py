"""What is known of one vehicle at one odometer: parameters, ageing rates, and their covariance.

Pure. Must never look at a measurement: how evidence moves an estimate is for the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from common import bounds
from common.ageing import law_of, transition, wandered
from common.manifest import Manifest
from common.revision import Revision

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Discrepancy:
    """The vehicle's own model discrepancy in volts, and the trips that it rests on."""

    std_v: float
    trips: float


@dataclass(frozen=True)
class Estimate:
    """theta [P] and rate [P] at `odometer`, covariance [2P, 2P] over (theta, rate).

    A rate that the manifest leaves out of the state is zero with zero rows in the covariance.
    `growth` [P] of the rates and `discrepancy` are the manifest's where they are None.
    """

    theta: FloatArray
    rate: FloatArray
    covariance: FloatArray
    odometer: float
    growth: FloatArray | None = None
    discrepancy: Discrepancy | None = None


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
    """The estimate at a later odometer: x = F x, P = F P F' + Q (common.ageing).

    An earlier odometer gives the estimate unchanged: the battery does not grow younger. A
    parameter that drifts to its bound bends and stays inside.
    """
    ds = odometer - estimate.odometer
    if ds <= 0:
        return estimate
    x, P = free_states([estimate], manifest)
    count = len(estimate.theta)
    F, Q = transition(law_of(manifest, estimate.growth), x[0, count:], ds)
    moved = F @ x[0]
    moved[:count] = bounds.reachable(moved[:count], *_bounds(manifest))
    return from_free_states(
        moved, F @ P[0] @ F.T + Q, manifest, replace(estimate, odometer=odometer)
    )


def drawn_states(estimate: Estimate, manifest: Manifest, normals: FloatArray) -> FloatArray:
    """Free numbers and rates [N, 2P] of N batteries, from standard normals [N, 2P]."""
    (x,), (P,) = free_states([estimate], manifest)
    states: FloatArray = x + normals @ _root(P).T
    return states


def wandered_states(
    states: FloatArray, estimate: Estimate, manifest: Manifest, ds: float, normals: FloatArray
) -> FloatArray:
    """Those states after ds, each on a path of its own; `estimate` is what they were drawn from."""
    moved = wandered(law_of(manifest, estimate.growth), states, ds, normals)
    count = len(estimate.theta)
    moved[:, :count] = bounds.reachable(moved[:, :count], *_bounds(manifest))
    return moved


def with_trip_spread(estimate: Estimate, manifest: Manifest) -> Estimate:
    """The estimate of one trip's own parameters: what varies from trip to trip comes on top."""
    covariance = estimate.covariance.copy()
    count = len(estimate.theta)
    index = np.arange(count)
    covariance[index, index] += trip_variances(manifest)
    return replace(estimate, covariance=covariance)


def trip_variances(manifest: Manifest) -> FloatArray:
    """Variance [P] of what each parameter takes for one trip only."""
    return np.array([p.trip_std**2 for p in manifest.parameters])


def discrepancy_of(estimate: Estimate, manifest: Manifest) -> Discrepancy:
    """The vehicle's own model discrepancy, the manifest's as long as there is no other."""
    return estimate.discrepancy or Discrepancy(manifest.model_discrepancy_std_v, 0.0)


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
        growth=np.array(revision.rate_growth) if revision.rate_growth else None,
        discrepancy=_carried(revision),
    )


def _carried(revision: Revision) -> Discrepancy | None:
    std_v = revision.discrepancy_std_v
    return None if std_v is None else Discrepancy(std_v, revision.discrepancy_trips)


def upper_triangle(covariance: FloatArray) -> list[float]:
    """The covariance in a revision's wire form."""
    triangle: list[float] = covariance[np.triu_indices(len(covariance))].tolist()
    return triangle


def active_states(manifest: Manifest) -> npt.NDArray[np.intp]:
    """Indices into (theta, rate) of what the filter estimates: all theta, and declared rates."""
    count = len(manifest.parameters)
    rates = [count + i for i, p in enumerate(manifest.parameters) if p.rate_prior_std > 0]
    return np.array([*range(count), *rates], dtype=np.intp)


def free_states(estimates: Sequence[Estimate], manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    """States [B, 2P] as free numbers (common.bounds), and their covariances [B, 2P, 2P]."""
    lower, upper = _bounds(manifest)
    free = bounds.free(np.stack([e.theta for e in estimates]), lower, upper)
    inverse = 1.0 / bounds.slope(free, lower, upper)
    x = np.concatenate([free, np.stack([e.rate for e in estimates]) * inverse], axis=1)
    scale = np.concatenate([inverse, inverse], axis=1)
    P = np.stack([e.covariance for e in estimates])
    return x, P * (scale[:, :, None] * scale[:, None, :])


def bounded_theta(free: FloatArray, manifest: Manifest) -> FloatArray:
    """Parameters [..., P] of free numbers [..., P], as the model takes them."""
    return bounds.bounded(free, *_bounds(manifest))


def pack(estimates: Sequence[Estimate], manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    """The active states [B, n] of B estimates as free numbers, and their covariances [B, n, n]."""
    active = active_states(manifest)
    x, P = free_states(estimates, manifest)
    return x[:, active], P[:, active[:, None], active]


def unpack(x: FloatArray, P: FloatArray, manifest: Manifest, before: Estimate) -> Estimate:
    """The estimate of active free states [n] and covariance [n, n]; the rest is as `before`."""
    active = active_states(manifest)
    count = len(before.theta)
    full_x = np.zeros(2 * count)
    full_x[active] = x
    full_P = np.zeros((2 * count, 2 * count))
    full_P[np.ix_(active, active)] = P
    return from_free_states(full_x, full_P, manifest, before)


def from_free_states(
    x: FloatArray, P: FloatArray, manifest: Manifest, before: Estimate
) -> Estimate:
    """The estimate of free numbers x [2P], P [2P, 2P]; what else it holds is as `before`."""
    count = len(before.theta)
    lower, upper = _bounds(manifest)
    free = bounds.reachable(x[:count], lower, upper)
    slope = bounds.slope(free, lower, upper)
    scale = np.concatenate([slope, slope])
    return replace(
        before,
        theta=bounds.bounded(free, lower, upper),
        rate=x[count:] * slope,
        covariance=P * np.outer(scale, scale),  # in this order it stays symmetric to the bit
    )


def _root(covariance: FloatArray) -> FloatArray:
    """R with R R' = P, also where P is only semidefinite: a rate that is left out has zero rows.

    By way of the correlations, since parameters and rates lie decades apart.
    """
    std = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    scale = np.where(std > 0, std, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    root: FloatArray = scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _bounds(manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    lower = np.array([p.lower for p in manifest.parameters])
    return lower, np.array([p.upper for p in manifest.parameters])
