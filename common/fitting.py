"""Where the cost is lowest: the filter of a bundle linearised once or again, for many vehicles.

A vehicle that has settled leaves the batch: what follows is not computed for it, and in company it
ends as alone. Pure. Must never judge a fit: the verdict does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.bundle_filter import START_SHARE, BundleFilter
from common.filter_values import Evidence, Fit, Prior

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SETTLED: Final = 0.1  # posterior standard deviations between passes: another brings nothing
# Of the way to where the unscented update wants to go: the one with the lowest cost is taken.
FIRST_STEPS: Final = (0.25, 0.5, 1.0, 1.5)
# Of the way to where a pass wants to go, where going all of it does not lower the cost.
SHORTER_STEPS: Final = (0.5, 0.25, 0.1)


def fit(prior: Prior, evidence: Evidence, filter_: BundleFilter) -> Fit:
    """The posterior [B]: one unscented update, or refined from there."""
    first, image = filter_.unscented(prior, evidence)
    if filter_.settings.passes == 1:
        return Fit(first.x, first.P, filter_.images(first.x[:, None], evidence.features)[:, 0])
    stay = Fit(prior.x, START_SHARE**2 * prior.P, image)
    cost = filter_.costs(prior.x[:, None], image[:, None], prior, evidence)
    way = _Way(stay, cost, first.x, first.P)
    start, _ = _best_step(way, FIRST_STEPS, prior, evidence, filter_)
    return refine(prior, start, evidence, filter_)


def refine(prior: Prior, start: Fit, evidence: Evidence, filter_: BundleFilter) -> Fit:
    """Linearise again around the last fit, as far as that lowers the cost (a line search).

    S. Sarkka, L. Svensson, "Levenberg-Marquardt and Line-Search Extended Kalman Smoothers",
    ICASSP 2020: near a steep end of discharge the full step may overshoot.
    """
    found = Fit(start.x.copy(), start.P.copy(), start.image.copy())
    at = np.arange(len(start.x))
    before = start
    for _ in range(filter_.settings.passes - 1):
        after, moved = _pass(prior, before, evidence, filter_)
        found.x[at], found.P[at], found.image[at] = after.x, after.P, after.image
        moving = moved & ~_has_settled(before, after)
        if not moving.any():
            break
        before = after
        if not moving.all():
            at, before = at[moving], after.take(moving)
            prior, evidence = prior.take(moving), evidence.take(moving)
    return found


def _pass(
    prior: Prior, before: Fit, evidence: Evidence, filter_: BundleFilter
) -> tuple[Fit, BoolArray]:
    """One linearisation, as far as it lowers the cost, and who moved [B].

    The whole way first: it is nearly always the best, and its image is needed anyway.
    """
    line = filter_.line(before, evidence)
    weight = filter_.point_weights(line, evidence)
    wanted = filter_.update(prior, line, weight, evidence)
    image = filter_.images(wanted.x[:, None], evidence.features)
    states = np.concatenate([before.x[:, None], wanted.x[:, None]], axis=1)
    images = np.concatenate([before.image[:, None], image], axis=1)
    costs = filter_.costs(states, images, prior, evidence, weight)
    whole, moved = Fit(wanted.x, wanted.P, image[:, 0]), costs[:, 1] < costs[:, 0]
    if moved.all():
        return whole, moved
    too_far = np.flatnonzero(~moved)
    stay = Fit(before.x, wanted.P, before.image).take(too_far)
    way = _Way(stay, costs[too_far, :1], wanted.x[too_far], wanted.P[too_far])
    some = prior.take(too_far), evidence.take(too_far)
    shorter, moved[too_far] = _best_step(way, SHORTER_STEPS, *some, filter_, weight[too_far])
    whole.x[too_far], whole.image[too_far] = shorter.x, shorter.image
    return whole, moved


@dataclass(frozen=True)
class _Way:
    """From where a fit stays, at its cost [B, 1], to x [B, n]; P [B, n, n] holds once it moved."""

    stay: Fit
    cost: FloatArray
    x: FloatArray
    P: FloatArray


def _best_step(
    way: _Way,
    steps: Sequence[float],
    prior: Prior,
    evidence: Evidence,
    filter_: BundleFilter,
    weight: FloatArray | None = None,
) -> tuple[Fit, BoolArray]:
    """The step of the way with the lowest cost, which may be none, and who moved [B]."""
    stay = way.stay
    states = stay.x[:, None] + np.array(steps)[:, None] * (way.x - stay.x)[:, None]
    images = filter_.images(states, evidence.features)
    costs = filter_.costs(states, images, prior, evidence, weight)
    best = np.concatenate([way.cost, costs], axis=1).argmin(axis=1)
    moved, each = best > 0, np.arange(len(best))
    # Where nothing moved the last of the steps stands in, and is not taken.
    chosen = Fit(states[each, best - 1], way.P, images[each, best - 1])
    return Fit(
        np.where(moved[:, None], chosen.x, stay.x),
        np.where(moved[:, None, None], chosen.P, stay.P),
        np.where(moved[:, None], chosen.image, stay.image),
    ), moved


def _has_settled(before: Fit, after: Fit) -> BoolArray:
    """Of which filters [B] no state moved by more than SETTLED of its standard deviation."""
    variance = np.diagonal(after.P, axis1=1, axis2=2)
    settled: BoolArray = (np.square(after.x - before.x) <= SETTLED**2 * variance).all(axis=1)
    return settled
