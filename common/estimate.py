"""What is known of one vehicle at one odometer: parameters, ageing rates, and their covariance.

Pure. Must never look at a measurement: how evidence moves an estimate is for the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from common.ageing import law_of, wandered
from common.layout import layout_of
from common.manifest import Manifest
from common.messages import Provisional
from common.revision import Revision

FloatArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


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
    moved[:, :count] = layout_of(manifest).bounds.reachable(moved[:, :count])
    return moved


def with_trip_spread(estimate: Estimate, manifest: Manifest) -> Estimate:
    """The estimate of one trip's own parameters: what varies from trip to trip comes on top."""
    covariance = estimate.covariance.copy()
    count = len(estimate.theta)
    index = np.arange(count)
    covariance[index, index] += layout_of(manifest).trip_variances
    return replace(estimate, covariance=covariance)


def discrepancy_of(estimate: Estimate, manifest: Manifest) -> Discrepancy:
    """The vehicle's own model discrepancy, the manifest's as long as there is no other."""
    return estimate.discrepancy or Discrepancy(manifest.model_discrepancy_std_v, 0.0)


def is_inside_bounds(estimate: Estimate, manifest: Manifest) -> bool:
    """Whether every parameter lies inside the manifest's bounds, and everything is finite."""
    bounds = layout_of(manifest).bounds
    finite = np.isfinite(estimate.covariance).all() and np.isfinite(estimate.rate).all()
    inside = (estimate.theta >= bounds.lower) & (estimate.theta <= bounds.upper)
    return bool(finite and np.all(inside))


def is_positive_definite(estimate: Estimate, manifest: Manifest) -> bool:
    """Whether the covariance over the active states can be one: sigma points need its root."""
    try:
        np.linalg.cholesky(estimate.covariance[layout_of(manifest).active_square])
    except np.linalg.LinAlgError:
        return False
    return True


def estimate_of(revision: Revision | Provisional) -> Estimate:
    """The estimate that a revision, or what a vehicle made for itself, carries."""
    return Estimate(
        theta=np.array(revision.theta),
        rate=np.array(revision.rate),
        covariance=symmetric(2 * len(revision.theta), revision.covariance),
        odometer=revision.odometer,
        growth=np.array(revision.rate_growth) if revision.rate_growth else None,
        discrepancy=_discrepancy_in(revision),
    )


class Carried(TypedDict):
    """What a message carries of an estimate, under the message's names."""

    odometer: float
    theta: list[float]
    rate: list[float]
    covariance: list[float]
    rate_growth: list[float]
    discrepancy_std_v: float | None
    discrepancy_trips: float


def carried(estimate: Estimate) -> Carried:
    """The inverse of `estimate_of`."""
    own = estimate.discrepancy
    return Carried(
        odometer=estimate.odometer,
        theta=estimate.theta.tolist(),
        rate=estimate.rate.tolist(),
        covariance=upper_triangle(estimate.covariance),
        rate_growth=[] if estimate.growth is None else estimate.growth.tolist(),
        discrepancy_std_v=None if own is None else own.std_v,
        discrepancy_trips=0.0 if own is None else own.trips,
    )


def _discrepancy_in(revision: Revision | Provisional) -> Discrepancy | None:
    std_v = revision.discrepancy_std_v
    return None if std_v is None else Discrepancy(std_v, revision.discrepancy_trips)


@lru_cache(maxsize=64)
def upper_indices(states: int) -> tuple[Index, Index]:
    """Where the upper triangle of a [states, states] matrix stands, row by row."""
    rows, columns = np.triu_indices(states)
    return rows, columns


def symmetric(states: int, upper: npt.ArrayLike) -> FloatArray:
    """The matrix [states, states] with this upper triangle, row by row."""
    rows, columns = upper_indices(states)
    P = np.empty((states, states))
    P[rows, columns] = P[columns, rows] = upper
    return P


def upper_triangle(covariance: FloatArray) -> list[float]:
    """The covariance in a revision's wire form."""
    triangle: list[float] = covariance[upper_indices(len(covariance))].tolist()
    return triangle


def free_states(estimates: Sequence[Estimate], manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    """States [B, 2P] as free numbers (common.bounds), and their covariances [B, 2P, 2P]."""
    bounds = layout_of(manifest).bounds
    free = bounds.free(np.array([e.theta for e in estimates]))
    inverse = 1.0 / bounds.slope(free)
    rate = np.array([e.rate for e in estimates])
    scale = np.concatenate([inverse, inverse], axis=1)
    P = np.array([e.covariance for e in estimates])
    return (
        np.concatenate([free, rate * inverse], axis=1),
        P * (scale[:, :, None] * scale[:, None, :]),
    )


def bounded_states(
    x: FloatArray, P: FloatArray, manifest: Manifest
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The inverse: theta [..., P], rates [..., P] and covariances of free states [..., 2P]."""
    layout = layout_of(manifest)
    bounds, count = layout.bounds, layout.count
    free = bounds.reachable(x[..., :count])
    slope = bounds.slope(free)
    scale = np.concatenate([slope, slope], axis=-1)
    # In this order P stays symmetric to the bit.
    covariance: FloatArray = P * (scale[..., :, None] * scale[..., None, :])
    return bounds.bounded(free), x[..., count:] * slope, covariance


def bounded_theta(free: FloatArray, manifest: Manifest) -> FloatArray:
    """Parameters [..., P] of free numbers [..., P], as the model takes them."""
    return layout_of(manifest).bounds.bounded(free)


def pack(estimates: Sequence[Estimate], manifest: Manifest) -> tuple[FloatArray, FloatArray]:
    """The active states [B, n] of B estimates as free numbers, and their covariances [B, n, n]."""
    layout = layout_of(manifest)
    x, P = free_states(estimates, manifest)
    return x[:, layout.active], P[:, *layout.active_square]


def _root(covariance: FloatArray) -> FloatArray:
    """R with R R' = P, also where P is only semidefinite: a rate that is left out has zero rows.

    By way of the correlations, since parameters and rates lie decades apart.
    """
    std = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    scale = np.where(std > 0, std, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    root: FloatArray = scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    return root
