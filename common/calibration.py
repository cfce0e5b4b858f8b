"""Calibrate a vehicle's parameters and ageing rates on a breach trace, and extrapolate them.

State: (theta, rate) along the odometer (common.ageing). A trip shows theta plus what it alone
brings (`trip_std`), so one trip counts for what it is worth. Pure: numpy in, numpy out; the model
is the bundle's own. Must never read a clock, a file or a socket: the vehicle and the cloud run the
very same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from common import fitting
from common.alignment import align, aligned_error_v
from common.batch import Batch, batch_of, estimates_of, extrapolate, extrapolated, with_active
from common.bundle_filter import BundleFilter
from common.discrepancy import point_variance
from common.errors import CalibrationError
from common.estimate import (
    Estimate,
    carried,
    discrepancy_of,
    estimate_of,
    is_inside_bounds,
    is_positive_definite,
    pack,
    prior,
    upper_triangle,
    with_trip_spread,
)
from common.filter_values import Settings
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from common.trip_share import of_the_battery, of_the_trip
from common.verdict import Verdict, judged

__all__ = [
    "Calibrated",
    "Estimate",
    "Settings",
    "align",
    "aligned_error_v",
    "calibrate",
    "carried",
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
    """One update of each vehicle on its trace; all of equal length are one batch.

    Raises CalibrationError when the prior is not positive definite or the result not finite.
    """
    filter_ = BundleFilter(model, manifest, settings)
    groups: dict[int, list[int]] = {}
    for index, trace in enumerate(traces):
        groups.setdefault(len(trace.time_s), []).append(index)
    results: dict[int, Calibrated] = {}
    for members in groups.values():
        before = [priors[i] for i in members]
        there = extrapolated(
            batch_of(before, manifest), np.array([odometers[i] for i in members]), manifest
        )
        verdict = _calibrated(there, [traces[i] for i in members], filter_)
        results.update(zip(members, _border(verdict, before, manifest), strict=True))
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
    discrepancy_v = discrepancy_of(estimate, manifest).std_v
    own = point_variance(manifest.measurement_noise_std_v, discrepancy_v)
    return model.predict(features, estimate.theta), np.sqrt(np.square(spread) + own)


def _calibrated(priors: Batch, traces: Sequence[TraceArrays], filter_: BundleFilter) -> Verdict:
    """`priors` stand at the trips' odometers; the traces are of equal length."""
    layout = filter_.layout
    before = filter_.prior(priors.x[:, layout.active], priors.P[:, *layout.active_square])
    trip = of_the_trip(before, filter_)
    evidence = filter_.evidence(traces, priors.discrepancy_v)
    fit = fitting.fit(trip, evidence, filter_)
    x, P = of_the_battery(before, trip, fit)
    if not (np.isfinite(x).all() and np.isfinite(P).all()):
        raise CalibrationError("the update gave a number that is not finite")
    posterior = with_active(priors, x, P, filter_.manifest)
    return judged(priors, posterior, trip, fit, evidence, filter_)


def _border(verdict: Verdict, before: Sequence[Estimate], manifest: Manifest) -> list[Calibrated]:
    """The arrays as one result for each vehicle."""
    estimates = estimates_of(verdict.posterior, before, manifest)
    columns = (verdict.nis, verdict.error_before_v, verdict.error_after_v, verdict.changed)
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Calibrated(
            estimate=estimate,
            nis=nis,
            points=verdict.points,
            error_before_v=before_v,
            error_after_v=after_v,
            finding="unexplained" if problem else "changed_battery" if changed else "drift",
            problem=problem,
        )
        for estimate, (nis, before_v, after_v, changed), problem in zip(
            estimates, numbers, verdict.problems, strict=True
        )
    ]
