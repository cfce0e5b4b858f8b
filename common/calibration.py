"""Calibrate a vehicle's parameters and ageing rates on a breach trace, and extrapolate them.

State: (theta, rate) along the odometer (common.ageing). A trip shows theta plus what it alone
brings (`trip_std`), so one trip counts for what it is worth. Pure: numpy in, numpy out; the model
is the bundle's own. Must never read a clock, a file or a socket: the vehicle and the cloud run the
very same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from common import evidence_check
from common.alignment import align, aligned_error_v
from common.bundle_filter import START_SHARE, BundleFilter, Evidence, Fit, Prior, Settings
from common.errors import CalibrationError
from common.estimate import (
    Discrepancy,
    Estimate,
    discrepancy_of,
    estimate_of,
    extrapolate,
    is_inside_bounds,
    is_positive_definite,
    pack,
    prior,
    trip_variances,
    unpack,
    upper_triangle,
    with_trip_spread,
)
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

__all__ = [
    "Calibrated",
    "Estimate",
    "Settings",
    "align",
    "aligned_error_v",
    "calibrate",
    "estimate_of",
    "extrapolate",
    "is_inside_bounds",
    "is_positive_definite",
    "prior",
    "upper_triangle",
    "voltage_band",
    "with_trip_spread",
]

FloatArray = npt.NDArray[np.float64]
Finding = Literal["drift", "changed_battery", "unexplained"]

STARTS: Final = 60
START_SPAN: Final = 3.0  # prior standard deviations to either side
# The manifest's discrepancy counts as this many trips, and a vehicle's own as at most that many:
# it must be able to follow a battery whose discharge changes its shape.
PRIOR_TRIPS: Final = 3.0
MOST_TRIPS: Final = 10.0


@dataclass(frozen=True)
class Calibrated:
    """A posterior, the prior's NIS over `points` measurements, the trace's mean absolute errors.

    Errors are those of the trip that is aligned with its first sample, as the vehicle predicts it.
    `finding`: the battery drifted as expected, or it changed at once (replaced, or a sudden
    fault: the prior was opened), or no parameters explain the trace (a bad sensor, or conditions
    that the model does not know), with `problem` in words.
    """

    estimate: Estimate
    nis: float
    points: int
    error_before_v: float
    error_after_v: float
    finding: Finding
    problem: str = ""


def calibrate(
    priors: Sequence[Estimate],
    traces: Sequence[TraceArrays],
    odometers: Sequence[float],
    model: VoltageModel,
    manifest: Manifest,
    settings: Settings,
) -> list[Calibrated]:
    """One update of each vehicle on its trace; one model call for all of equal length.

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

    `estimate` is a trip's (`align`, or `with_trip_spread` before it begins). Its uncertainty
    through the sigma points, plus discrepancy and measurement noise.
    """
    filter_ = BundleFilter(model, manifest, settings)
    spread = filter_.band_std(*pack([estimate], manifest), features)
    own = manifest.measurement_noise_std_v**2 + discrepancy_of(estimate, manifest).std_v ** 2
    return model.predict(features, estimate.theta), np.sqrt(np.square(spread) + own)


def _calibrate_group(
    priors: Sequence[Estimate], traces: Sequence[TraceArrays], filter_: BundleFilter
) -> list[Calibrated]:
    """`priors` stand at the trip's odometer; the traces are of equal length."""
    manifest = filter_.manifest
    before, trip = _priors(priors, filter_)
    stds = np.array([discrepancy_of(p, manifest).std_v for p in priors])
    evidence = filter_.evidence(traces, stds)
    fit = _first_fit(trip, evidence, filter_)
    x, P = _of_the_battery(before, trip, fit)
    if not (np.isfinite(x).all() and np.isfinite(P).all()):
        raise CalibrationError("the update gave a number that is not finite")
    nis = filter_.surprise(fit, trip, evidence)
    shift = filter_.shift(fit, trip)
    found = []
    for i, prior_i in enumerate(priors):
        case = _Case(prior_i, traces[i], float(nis[i]), filter_)
        posterior = unpack(x[i], P[i], manifest, prior_i)
        of_trip = unpack(fit.x[i], fit.P[i], manifest, prior_i)
        found.append(_judged(case, posterior, of_trip, float(shift[i])))
    return found


def _priors(priors: Sequence[Estimate], filter_: BundleFilter) -> tuple[Prior, Prior]:
    """Of the battery, and of the trip: what varies from trip to trip comes on top."""
    manifest = filter_.manifest
    before = filter_.prior(*pack(priors, manifest))
    own = trip_variances(manifest)
    if not own.any():
        return before, before
    spread = np.zeros(before.x.shape[1])
    spread[: len(own)] = own
    return before, filter_.prior(before.x, before.P + np.diag(spread))


def _first_fit(trip: Prior, evidence: Evidence, filter_: BundleFilter) -> Fit:
    if filter_.settings.passes > 1:
        return filter_.fit(trip, evidence)
    plain = filter_.unscented(trip, evidence)
    return Fit(plain.x, plain.P)


def _of_the_battery(before: Prior, trip: Prior, fit: Fit) -> tuple[FloatArray, FloatArray]:
    """From the posterior of the trip's parameters to that of the battery's, [B, n] and [B, n, n].

    With T = P + J and G = P T^-1: x+ = x + G (x_t - x) and P+ = G J + G P_t G' (the conditional
    mean of x given x_t = x + e, e ~ N(0, J)); G J is the parallel sum of P and J, so both terms
    are positive semidefinite.
    """
    if before is trip:
        return fit.x, fit.P
    G = before.P @ trip.information
    shift: FloatArray = (G @ (fit.x - before.x)[..., None])[..., 0]
    P = G @ (trip.P - before.P) + G @ fit.P @ G.swapaxes(-1, -2)
    return before.x + shift, 0.5 * (P + P.swapaxes(-1, -2))


@dataclass(frozen=True)
class _Case:
    """One vehicle of a group: its prior at the trip's odometer, its trace, its NIS."""

    prior: Estimate
    trace: TraceArrays
    nis: float
    filter: BundleFilter

    @property
    def threshold_v(self) -> float:
        return self.filter.manifest.error_threshold_v

    def error_v(self, estimate: Estimate) -> float:
        model, manifest = self.filter.model, self.filter.manifest
        return aligned_error_v(estimate, self.trace, model, manifest)

    def residual(self, of_trip: Estimate) -> FloatArray:
        trace = self.trace
        return trace.voltage_v - self.filter.model.predict(trace.features, of_trip.theta)


def _judged(case: _Case, posterior: Estimate, of_trip: Estimate, shift: float) -> Calibrated:
    """What the evidence says, and the estimate with the discrepancy that it shows.

    The vehicle will align a trip with the estimate that it is sent, so the error after is that of
    the whole result.
    """
    manifest = case.filter.manifest
    finding: Finding = "drift"
    if evidence_check.is_a_jump(shift, len(case.filter.active)):
        finding = "changed_battery"
    problem, residual = "", case.residual(of_trip)
    discrepancy = discrepancy_of(case.prior, manifest)
    if case.filter.settings.passes > 1:  # what one pass leaves says nothing about the trace
        if float(np.abs(residual).mean()) > case.threshold_v:
            posterior, residual, finding = _opened_if_better(case, posterior, residual, finding)
        problem = evidence_check.problem(case.trace, residual, discrepancy.std_v, manifest)
    if not problem:
        learned = _learned(discrepancy, residual, len(of_trip.theta), manifest)
        posterior = replace(posterior, discrepancy=learned)
    return Calibrated(
        estimate=posterior,
        nis=case.nis,
        points=len(case.trace.time_s),
        error_before_v=case.error_v(case.prior),
        error_after_v=case.error_v(posterior),
        finding="unexplained" if problem else finding,
        problem=problem,
    )


def _opened_if_better(
    case: _Case, posterior: Estimate, residual: FloatArray, finding: Finding
) -> tuple[Estimate, FloatArray, Finding]:
    """When even the posterior breaches, the prior was wrong about this battery: open it."""
    opened = _opened(case)
    if opened is None:
        return posterior, residual, finding
    error_v = case.error_v(opened)
    if not error_v < case.error_v(posterior):
        return posterior, residual, finding
    explained = error_v <= case.threshold_v
    return opened, case.residual(opened), "changed_battery" if explained else "drift"


def _learned(
    before: Discrepancy, residual: FloatArray, parameters: int, manifest: Manifest
) -> Discrepancy:
    """The discrepancy that the residuals of a fitted trip show, averaged with those before.

    Innovation-based adaptive estimation (R. K. Mehra, IEEE Trans. Automatic Control 15, 1970), on
    the residuals after the fit, whose mean square lacks the fitted parameters' share.
    """
    points = len(residual)
    noise = manifest.measurement_noise_std_v**2
    share = points / max(points - parameters, 1)
    seen = max(float(np.square(residual).mean()) * share - noise, 0.0)
    trips = before.trips + PRIOR_TRIPS * (before.trips == 0)
    variance = (trips * before.std_v**2 + seen) / (trips + 1.0)
    return Discrepancy(float(np.sqrt(variance)), min(trips + 1.0, MOST_TRIPS))


def _opened(case: _Case) -> Estimate | None:
    """The fit from the manifest's own uncertainty around where the prior stood, or stands as new.

    Near a steep end of discharge the error has several valleys, so the search begins from the best
    of many points. None when it is not finite.
    """
    filter_, manifest = case.filter, case.filter.manifest
    # As free numbers: at a bound theta hardly moves, and its width there would be beyond all sense.
    x, _ = pack([case.prior], manifest)
    new_x, P = pack([prior(manifest, case.prior.odometer)], manifest)
    as_prior = filter_.prior(x, P)
    stds = np.array([discrepancy_of(case.prior, manifest).std_v])
    evidence = filter_.evidence([case.trace], stds)
    start = Fit(_best_start(as_prior, new_x, evidence, filter_), START_SHARE**2 * as_prior.P)
    fit = filter_.refine(as_prior, start, evidence)
    if not (np.isfinite(fit.x).all() and np.isfinite(fit.P).all()):
        return None
    return unpack(fit.x[0], fit.P[0], manifest, case.prior)


def _best_start(
    opened: Prior, as_new: FloatArray, evidence: Evidence, filter_: BundleFilter
) -> FloatArray:
    """The one with the lowest error, [1, n], of points spread over the opened prior and as new."""
    n = opened.x.shape[1]
    spread = np.random.default_rng(0).uniform(-START_SPAN, START_SPAN, (STARTS, n))
    scaled = spread * np.sqrt(np.diagonal(opened.P[0]))
    starts: FloatArray = np.concatenate([opened.x, as_new, opened.x + scaled, as_new + scaled])
    images = filter_.images(starts[None], evidence.features)[0]
    best = int(np.abs(images - evidence.z).mean(axis=1).argmin())
    return starts[best : best + 1]
