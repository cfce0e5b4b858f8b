"""Learn the fleet's prior from its vehicles: empirical Bayes by the method of moments.

Each vehicle's path of theta between its revisions gives theta and its slope at common ages.
Their covariance over the vehicles, less what the measurement alone brings, is how vehicles differ
(DerSimonian and Laird, "Meta-analysis in clinical trials", Controlled Clinical Trials 7, 1986, and
its multivariate form: Jackson, White and Thompson, Statistics in Medicine 29, 2010).

Pure. Must never depend on the order of the vehicles, nor let one absurd vehicle decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import TooFewVehiclesError
from common.estimate import Estimate, upper_triangle
from common.fleet_growth import growth_of
from common.fleet_prior import MOST_NODES, FleetPrior
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]

MIN_VEHICLES: Final = 3
# A few that outlived the others are another sample: an age counts that so many have reached.
ENOUGH_SHARE: Final = 0.2
# Robust standard deviations from the median beyond which a vehicle counts less (Huber's weights:
# P. J. Huber, "Robust Statistics", 1981). With four states a normal vehicle is outside once in 90.
HUBER: Final = 3.0
MAD_TO_STD: Final = 1.4826
# Vehicles may differ by a few percent of what the manifest allows, whatever the sample says.
FLOOR_SHARE: Final = 0.03


@dataclass(frozen=True)
class History:
    """One battery: its estimates after each breach, odometers counted from its own beginning.

    `is_from_new`: it was watched from the beginning, where it had the nominal parameters.
    """

    estimates: Sequence[Estimate]
    is_from_new: bool


@dataclass(frozen=True)
class _Path:
    """theta [n, P] at ages [n], with the variance of its measurement [n, P, P]."""

    ages: FloatArray
    theta: FloatArray
    covariance: FloatArray


@dataclass(frozen=True)
class _Node:
    """What `vehicles` of the fleet show at one age: states (theta, rate) [2P].

    `noise` is what the measurement brings to `scatter`; `midpoint` where the slopes were taken.
    """

    vehicles: int
    mean: FloatArray
    scatter: FloatArray
    noise: FloatArray
    midpoint: float


def learn(
    histories: Sequence[History], manifest: Manifest, *, bundle: str, version: int, made_at: float
) -> FleetPrior:
    """The prior of a fleet. Raises TooFewVehiclesError."""
    paths = _paths(histories, manifest)
    if len(paths) < MIN_VEHICLES:
        raise TooFewVehiclesError(len(paths), MIN_VEHICLES)
    grid = _grid(paths)
    floor = _floor(manifest)
    nodes = [_node(paths, s, grid[1] - grid[0], floor) for s in grid]
    mean = np.stack([node.mean for node in nodes])
    count = len(manifest.parameters)
    midpoints = np.array([node.midpoint for node in nodes])
    growth = growth_of(midpoints, mean[:, count:], _std_of_mean(nodes)[:, count:])
    # The slope over an interval is the rate at its middle, which at both ends is not the node.
    mean[:, count:] *= np.exp(growth * (grid - midpoints)[:, None])
    return FleetPrior(
        bundle=bundle,
        version=version,
        made_at=made_at,
        vehicles=len(paths),
        revisions=sum(len(history.estimates) for history in histories),
        parameters=list(manifest.parameter_names),
        odometers=grid.tolist(),
        theta=mean[:, :count].tolist(),
        rate=mean[:, count:].tolist(),
        covariance=[upper_triangle(P) for P in _spreads(nodes, mean, manifest, floor)],
        growth=growth.tolist(),
        discrepancy_std_v=_discrepancy(histories),
    )


def _paths(histories: Sequence[History], manifest: Manifest) -> list[_Path]:
    """In an order of their own, so that the vehicles' order does not show in the last digit."""
    found = [_path(history, manifest) for history in histories]
    usable = [path for path in found if path is not None]
    return sorted(usable, key=lambda path: (path.ages.tolist(), path.theta.tolist()))


def _path(history: History, manifest: Manifest) -> _Path | None:
    """None for a battery without extent, or with a number that is none."""
    count = len(manifest.parameters)
    rows = [(e.odometer, e.theta, e.covariance[:count, :count]) for e in history.estimates]
    if history.is_from_new:
        nominal = np.array([parameter.nominal for parameter in manifest.parameters])
        rows.append((0.0, nominal, np.zeros((count, count))))
    rows.sort(key=lambda row: row[0])
    later = [row for i, row in enumerate(rows) if i == 0 or row[0] > rows[i - 1][0]]
    if len(later) < 2:  # noqa: PLR2004 - a slope needs two points
        return None
    ages, theta, covariance = (np.array(column) for column in zip(*later, strict=True))
    if not all(np.isfinite(values).all() for values in (ages, theta, covariance)):
        return None
    return _Path(ages, theta, covariance)


def _grid(paths: Sequence[_Path]) -> FloatArray:
    """Mileages that enough of the vehicles have reached, no finer than their revisions are."""
    enough = max(MIN_VEHICLES, int(np.ceil(ENOUGH_SHARE * len(paths))))
    first = np.sort([path.ages[0] for path in paths])[enough - 1]
    last = np.sort([path.ages[-1] for path in paths])[-enough]
    if last <= first:
        raise TooFewVehiclesError(0, MIN_VEHICLES)
    revisions = float(np.median([len(path.ages) for path in paths]))
    grid: FloatArray = np.linspace(first, last, int(np.clip(revisions, 2, MOST_NODES)))
    return grid


def _floor(manifest: Manifest) -> FloatArray:
    """Least standard deviation [2P] between vehicles; a rate out of the state needs some, too."""
    theta = [p.prior_std for p in manifest.parameters]
    rate = [p.rate_prior_std or p.prior_std for p in manifest.parameters]
    return FLOOR_SHARE * np.array(theta + rate)


def _node(paths: Sequence[_Path], age: float, step: float, floor: FloatArray) -> _Node:
    seen = [found for path in paths if (found := _state(path, age, step)) is not None]
    y = np.stack([state for state, _, _ in seen])
    R = np.stack([noise for _, noise, _ in seen])
    w = _weights(y, floor)
    mean = w @ y / w.sum()
    squares = np.square(w).sum()
    effective = w.sum() ** 2 / squares
    d = (y - mean) * w[:, None]
    scatter = d.T @ d / (squares * max(1.0 - 1.0 / effective, 0.5))
    noise = np.einsum("v,vij->ij", w, R) / w.sum()
    midpoint = w @ np.array([middle for _, _, middle in seen]) / w.sum()
    return _Node(len(seen), mean, scatter, noise, float(midpoint))


def _state(path: _Path, age: float, step: float) -> tuple[FloatArray, FloatArray, float] | None:
    """(theta, slope) [2P] of a path at an age, its noise [2P, 2P], the middle of the slope."""
    first, last = path.ages[0], path.ages[-1]
    begin, end = max(age - step / 2, first), min(age + step / 2, last)
    if not first <= age <= last or end - begin < step / 4:
        return None
    (theta, P), (before, P_before), (after, P_after) = (_at(path, s) for s in (age, begin, end))
    count = len(theta)
    noise = np.zeros((2 * count, 2 * count))
    noise[:count, :count] = P
    noise[count:, count:] = (P_before + P_after) / (end - begin) ** 2
    return np.concatenate([theta, (after - before) / (end - begin)]), noise, (begin + end) / 2


def _at(path: _Path, age: float) -> tuple[FloatArray, FloatArray]:
    """theta and its covariance, linear between revisions."""
    i = int(np.clip(np.searchsorted(path.ages, age), 1, len(path.ages) - 1))
    s0, s1 = path.ages[i - 1], path.ages[i]
    share = (age - s0) / (s1 - s0)
    theta, P = path.theta, path.covariance
    return (
        (1.0 - share) * theta[i - 1] + share * theta[i],
        (1.0 - share) * P[i - 1] + share * P[i],
    )


def _weights(y: FloatArray, floor: FloatArray) -> FloatArray:
    """One weight [V] a vehicle, from its state that is farthest from the median."""
    distance = np.abs(y - np.median(y, axis=0))
    spread = MAD_TO_STD * np.median(distance, axis=0) + floor
    farthest = (distance / spread).max(axis=1)
    weights: FloatArray = HUBER / np.maximum(farthest, HUBER)
    return weights


def _std_of_mean(nodes: Sequence[_Node]) -> FloatArray:
    return np.stack([np.sqrt(np.diag(node.scatter) / node.vehicles) for node in nodes])


def _spreads(
    nodes: Sequence[_Node], mean: FloatArray, manifest: Manifest, floor: FloatArray
) -> list[FloatArray]:
    """What a further vehicle may differ by at each node, [2P, 2P] each.

    With few vehicles the fleet's own pooled covariance weighs as much as one vehicle for each
    state. Pooled is what is relative to the ageing itself: vehicles age alike, faster or slower.
    """
    aged = mean - np.array([p.nominal for p in manifest.parameters] + [0.0] * (mean.shape[1] // 2))
    between = np.stack([node.scatter - node.noise for node in nodes])
    noise = np.stack([np.diag(node.noise) for node in nodes])
    vehicles = np.array([node.vehicles for node in nodes])
    scale = np.sqrt(np.square(aged) + np.square(floor))
    outer = scale[:, :, None] * scale[:, None, :]
    # A node counts by its vehicles, and by how far the ageing stands out of noise and floor.
    clear = np.square(aged) / (np.square(scale) + noise)
    weight = vehicles * clear.mean(axis=1) + np.finfo(float).tiny
    pooled = np.einsum("k,kij->ij", weight / weight.sum(), between / outer)
    found = []
    for n, B, unit in zip(vehicles, between, outer, strict=True):
        states = len(floor)
        mixed = (n * B + states * pooled * unit) / (n + states)
        found.append(_above_floor(mixed, floor) * (1.0 + 1.0 / n))
    return found


def _above_floor(covariance: FloatArray, floor: FloatArray) -> FloatArray:
    """The nearest covariance that spreads by at least `floor` in every direction."""
    scaled = covariance / np.outer(floor, floor)
    values, axes = np.linalg.eigh(0.5 * (scaled + scaled.T))
    lifted: FloatArray = (axes * np.maximum(values, 1.0)) @ axes.T * np.outer(floor, floor)
    return 0.5 * (lifted + lifted.T)


def _discrepancy(histories: Sequence[History]) -> float | None:
    """The median over the vehicles that have learned their own."""
    learned = [h.estimates[-1].discrepancy for h in histories if h.estimates]
    known = [found.std_v for found in learned if found is not None]
    return float(np.median(known)) if known else None
