"""What new batteries already show of the spread that the filter must not take for ageing.

Each training trip is calibrated alone with the bundle's own filter. How the parameters scatter from
trip to trip is `trip_std`; what the residuals still hold beyond the noise is the discrepancy, split
into one part that is the same everywhere and one that grows with the slope of the voltage
(`point_std`), with its correlation along the trip. Must never look at a trip after the training
trips: an aged battery is what the vehicle's revisions are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from common import fitting
from common.bundle_filter import BundleFilter
from common.discrepancy import unbiased_squares
from common.errors import CalibrationError
from common.estimate import pack, prior
from common.filter_values import Settings
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

ROUNDS: Final = 3  # the spread decides how the trips are fitted, and these fits decide the spread
MIN_TRIPS: Final = 5  # fewer tell no spread
DISCREPANCY_FLOOR: Final = 0.1  # of the measurement noise: no model is perfect
# A lag-one correlation below this is none: a trace of 50 points has that much by chance.
LEAST_CORRELATION: Final = 0.3
NORMAL_MAD: Final = 1.4826  # from median absolute deviation to standard deviation
# Squared slopes that vary by a smaller share: an offset at each point is the discrepancy itself.
LEAST_VARIATION: Final = 0.01
# Of two trips the median lies between them: a vehicle with so few is centred with all others.
TRIPS_TO_CENTRE: Final = 3


@dataclass(frozen=True)
class _Fitted:
    """Of trips: theta [T, P], its posterior variance [T, P], residuals and slopes by trip."""

    theta: FloatArray
    variance: FloatArray
    residuals: list[FloatArray]
    slopes: list[FloatArray]


def with_trip_scatter(
    manifest: Manifest,
    model: VoltageModel,
    trips: Sequence[TraceArrays],
    vehicle_of_trip: Sequence[int],
    given: Sequence[str] = (),
) -> Manifest:
    """The manifest with what the trips show; parameters named in `given` keep their `trip_std`.

    The network knows these trips, so its discrepancy is at least the manifest's, which comes from
    trips that were held out. Unchanged where the trips are fewer than MIN_TRIPS or do not fit.
    """
    if len(trips) < MIN_TRIPS:
        return manifest
    learned = manifest
    for _ in range(ROUNDS):
        try:
            fitted = _fit_all(learned, model, trips)
        except CalibrationError:
            return manifest
        learned = _with_noise(learned, fitted)
        learned = _with_trip_std(learned, fitted, np.asarray(vehicle_of_trip), given)
    discrepancy_v = max(learned.model_discrepancy_std_v, manifest.model_discrepancy_std_v)
    return msgspec.structs.replace(learned, model_discrepancy_std_v=discrepancy_v)


def _fit_all(manifest: Manifest, model: VoltageModel, trips: Sequence[TraceArrays]) -> _Fitted:
    """Each trip alone from the prior, without rates and without a spread from trip to trip."""
    still = msgspec.structs.replace(
        manifest,
        parameters=[
            msgspec.structs.replace(p, rate_prior_std=0.0, trip_std=0.0)
            for p in manifest.parameters
        ],
    )
    filter_ = BundleFilter(model, still, Settings())
    count = len(manifest.parameters)
    x, P = pack([prior(still)], still)
    start = filter_.prior(x, P)
    theta, variance, residuals, slopes = [], [], [], []
    for trip in trips:
        evidence = filter_.evidence([trip], np.array([still.model_discrepancy_std_v]))
        fit = fitting.fit(start, evidence, filter_)
        theta.append(fit.x[0, :count])
        variance.append(np.diagonal(fit.P[0])[:count])
        residuals.append((evidence.z - fit.image)[0])
        slopes.append(filter_.line(fit, evidence).H_t[0])
    return _Fitted(np.array(theta), np.array(variance), residuals, slopes)


def _with_noise(manifest: Manifest, fitted: _Fitted) -> Manifest:
    """Discrepancy, its correlation, and the spread at a point, from the residuals."""
    noise = manifest.measurement_noise_std_v**2
    beyond = (
        np.concatenate([unbiased_squares(e, fitted.theta.shape[1]) for e in fitted.residuals])
        - noise
    )
    squares = np.concatenate([np.square(slope).T for slope in fitted.slopes])
    squares = squares * (squares.std(axis=0) > LEAST_VARIATION * squares.mean(axis=0))
    columns = np.column_stack([np.ones(len(beyond)), squares])
    expected = noise + columns @ _variances(manifest)
    weight = 1.0 / expected
    found, _ = nnls(columns * weight[:, None], beyond * weight)
    floor_v = DISCREPANCY_FLOOR * manifest.measurement_noise_std_v
    discrepancy_v = max(float(np.sqrt(found[0])), floor_v)
    points = np.sqrt(found[1:])
    return msgspec.structs.replace(
        manifest,
        model_discrepancy_std_v=round(discrepancy_v, 6),
        discrepancy_correlation=_correlation(fitted.residuals, noise),
        parameters=[
            msgspec.structs.replace(p, point_std=float(f"{std:.3g}"))
            for p, std in zip(manifest.parameters, points.tolist(), strict=True)
        ],
    )


def _with_trip_std(
    manifest: Manifest,
    fitted: _Fitted,
    vehicle_of_trip: npt.NDArray[np.intp],
    given: Sequence[str],
) -> Manifest:
    """The scatter of the fits beyond their own uncertainty, about each vehicle's centre."""
    centred = fitted.theta - np.median(fitted.theta, axis=0)
    for vehicle in np.unique(vehicle_of_trip):
        own = vehicle_of_trip == vehicle
        if own.sum() >= TRIPS_TO_CENTRE:
            centred[own] = fitted.theta[own] - np.median(fitted.theta[own], axis=0)
    scatter = (NORMAL_MAD * np.median(np.abs(centred), axis=0)) ** 2
    beyond = np.sqrt(np.maximum(scatter - np.median(fitted.variance, axis=0), 0.0))
    return msgspec.structs.replace(
        manifest,
        parameters=[
            p if p.name in given else msgspec.structs.replace(p, trip_std=float(f"{std:.3g}"))
            for p, std in zip(manifest.parameters, beyond.tolist(), strict=True)
        ],
    )


def _variances(manifest: Manifest) -> FloatArray:
    own = manifest.model_discrepancy_std_v**2
    return np.array([own, *(p.point_std**2 for p in manifest.parameters)])


def _correlation(residuals: Sequence[FloatArray], noise: float) -> float:
    """Length of correlation as a share of the trace, from the lag-one product beyond the noise."""
    products = np.concatenate([e[1:] * e[:-1] for e in residuals])
    beyond = float(np.square(np.concatenate(residuals)).mean()) - noise
    if beyond <= 0:
        return 0.0
    lag_one = min(float(products.mean()) / beyond, 0.99)
    if lag_one < LEAST_CORRELATION:
        return 0.0
    points = float(np.median([len(e) for e in residuals]))
    share = -1.0 / (points * float(np.log(lag_one)))
    return round(min(share, 1.0), 4)
