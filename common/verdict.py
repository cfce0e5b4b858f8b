"""What the evidence says of many batteries: drift, change, or nothing that parameters explain.

The fits come from common.fitting; here their errors are taken as the vehicle will see them, a prior
that was wrong is opened, and the discrepancy learns what the fits leave. Pure. Must never look at
one vehicle with another's eyes: every line is a vehicle's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from common import evidence_check, fitting
from common.alignment import aligned_errors
from common.batch import Batch, with_active
from common.bundle_filter import START_SHARE, BundleFilter
from common.discrepancy import unbiased_squares
from common.estimate import pack, prior
from common.filter_values import Evidence, Fit, Prior
from common.trip_share import of_the_battery, of_the_trip

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

STARTS: Final = 60
START_SPAN: Final = 3.0  # prior standard deviations to either side
# A new battery's own uncertainty first; an old one that nobody saw grow old lies farther.
WIDTHS: Final = (1.0, 5.0)
# The manifest's discrepancy counts as this many trips, and a vehicle's own as at most that many:
# it must be able to follow a battery whose discharge changes its shape.
PRIOR_TRIPS: Final = 2.0
MOST_TRIPS: Final = 10.0


@dataclass(frozen=True)
class Verdict:
    """Of B vehicles: posteriors, and arrays [B]. `problems` are empty where the trace is believed.

    `points` are those of each trace; `changed`: beyond what any drift explains.
    """

    posterior: Batch
    nis: FloatArray
    points: int
    error_before_v: FloatArray
    error_after_v: FloatArray
    changed: BoolArray
    problems: list[str]


def judged(
    before: Batch,
    posterior: Batch,
    trip: Prior,
    fit: Fit,
    evidence: Evidence,
    filter_: BundleFilter,
) -> Verdict:
    """The posteriors with the discrepancy that they show, and what is to be thought of them.

    `before` and `posterior` are the batteries', `trip` and `fit` the trips'. The vehicle will align
    a trip with the estimate that it is sent, so the error after is that of the whole result.
    """
    shift = filter_.shift(fit, trip)
    points = evidence.z.shape[1]
    changed = evidence_check.are_jumps(shift, fit.x.shape[1])
    found, problems = _Found(posterior, evidence.z - fit.image, changed), [""] * len(shift)
    if filter_.settings.passes > 1:  # what one pass leaves says nothing about the trace
        for width in WIDTHS:
            found = _opened_where_breaching(found, width, before, evidence, filter_)
        problems = evidence_check.problems(
            evidence.z, found.residual, before.discrepancy_v, filter_.manifest
        )
    believed = np.array([not problem for problem in problems])
    posterior = _with_learned(found, evidence.share, believed, filter_)
    both = before.followed_by(posterior)
    errors_v = _errors(both, evidence.take(np.tile(np.arange(len(shift)), 2)), filter_)
    return Verdict(
        posterior=posterior,
        nis=filter_.surprise(fit, trip, evidence),
        points=points,
        error_before_v=errors_v[: len(shift)],
        error_after_v=errors_v[len(shift) :],
        changed=found.changed,
        problems=problems,
    )


@dataclass(frozen=True)
class _Found:
    """Posteriors [B], what their fits leave of the traces [B, m], and whose battery changed [B]."""

    posterior: Batch
    residual: FloatArray
    changed: BoolArray


def _errors(batch: Batch, evidence: Evidence, filter_: BundleFilter) -> FloatArray:
    return aligned_errors(batch, evidence.features, evidence.z, filter_.model, filter_.manifest)


def _opened_where_breaching(
    found: _Found, width: float, before: Batch, evidence: Evidence, filter_: BundleFilter
) -> _Found:
    """Where even the posterior breaches, the prior was wrong about the battery: open it."""
    threshold_v = filter_.manifest.error_threshold_v
    at = np.flatnonzero(np.abs(found.residual).mean(axis=1) > threshold_v)
    if not len(at):
        return found
    some = evidence.take(at)
    battery, fit = _opened(before.take(at), width, some, filter_)
    finite = np.isfinite(battery.x).all(axis=1) & np.isfinite(battery.P).all(axis=(1, 2))
    at, some, fit, battery = at[finite], some.take(finite), fit.take(finite), battery.take(finite)
    opened = with_active(found.posterior.take(at), battery.x, battery.P, filter_.manifest)
    errors_v = _errors(opened, some, filter_)
    explained = errors_v <= threshold_v
    better = errors_v < _errors(found.posterior.take(at), some, filter_)
    if width > WIDTHS[0]:  # it would give the battery all of a trip that nothing explains
        better &= explained
    at, residual, changed = at[better], found.residual.copy(), found.changed.copy()
    residual[at] = some.z[better] - fit.image[better]
    changed[at] = explained[better]
    return _Found(found.posterior.replaced(at, opened.take(better)), residual, changed)


def _opened(
    before: Batch, width: float, evidence: Evidence, filter_: BundleFilter
) -> tuple[Fit, Fit]:
    """The fits from `width` times the manifest's uncertainty around the priors, or around new.

    Of the batteries, and of the trips: what a trip alone brings is taken off here, too.

    Near a steep end of discharge the error has several valleys, so the search begins from the best
    of many points.
    """
    # As free numbers: at a bound theta hardly moves, and its width there would be beyond all sense.
    new_x, P = pack([prior(filter_.manifest)], filter_.manifest)
    x = before.x[:, filter_.layout.active]
    battery = filter_.prior(x, np.repeat(width**2 * P, len(x), axis=0))
    as_prior = of_the_trip(battery, filter_)
    x, image = _best_start(as_prior, new_x, evidence, filter_)
    start = Fit(x, START_SHARE**2 * as_prior.P, image)
    fit = fitting.refine(as_prior, start, evidence, filter_)
    return Fit(*of_the_battery(battery, as_prior, fit), fit.image), fit


def _best_start(
    opened: Prior, as_new: FloatArray, evidence: Evidence, filter_: BundleFilter
) -> tuple[FloatArray, FloatArray]:
    """Those with the lowest error, [B, n], of points spread over the opened priors and as new.

    And the voltages [B, m] there.
    """
    n = opened.x.shape[1]
    spread = np.random.default_rng(0).uniform(-START_SPAN, START_SPAN, (STARTS, n))
    scaled = np.concatenate([np.zeros((1, n)), spread * np.sqrt(np.diagonal(opened.P[0]))])
    centres = np.stack([opened.x, np.broadcast_to(as_new, opened.x.shape)], axis=1)
    starts = (centres[:, :, None] + scaled).reshape(len(opened.x), -1, n)
    images = filter_.images(starts, evidence.features)
    best = np.abs(images - evidence.z[:, None]).mean(axis=2).argmin(axis=1)
    each = np.arange(len(best))
    return starts[each, best], images[each, best]


def _with_learned(
    found: _Found, share: FloatArray, believed: BoolArray, filter_: BundleFilter
) -> Batch:
    """The discrepancies that the residuals of fitted trips show, averaged with those before.

    Every point counts by its `share` of the trip: the points of a trace stand close together where
    the voltage moves and the model is at its worst, and the band is for the whole trip.

    Innovation-based adaptive estimation (R. K. Mehra, IEEE Trans. Automatic Control 15, 1970), on
    the residuals after the fit, whose mean square lacks the fitted parameters' share.
    """
    noise = filter_.manifest.measurement_noise_std_v**2
    squares = unbiased_squares(found.residual, filter_.layout.count)
    seen = np.maximum((squares * share).sum(axis=1) - noise, 0.0)
    posterior = found.posterior
    before_v, before_trips = posterior.discrepancy_v, posterior.discrepancy_trips
    trips = np.where(before_trips == 0, PRIOR_TRIPS, before_trips)
    learned_v = np.sqrt((trips * np.square(before_v) + seen) / (trips + 1.0))
    return replace(
        posterior,
        discrepancy_v=np.where(believed, learned_v, before_v),
        discrepancy_trips=np.where(believed, np.minimum(trips + 1.0, MOST_TRIPS), before_trips),
    )
