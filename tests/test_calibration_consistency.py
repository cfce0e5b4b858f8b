"""On linear batteries the calibration is the Kalman filter, and as sure as it should be.

Expected values are the textbook's equations over (theta, e), e what a trip brings of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from filterpy.kalman import KalmanFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from common import calibration, ukf
from common.calibration import Calibrated, Estimate, with_trip_spread
from common.estimate import Discrepancy, discrepancy_of
from common.layout import layout_of
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays, shares
from common.verdict import MOST_TRIPS
from tests.support_calibration import (
    EXACT,
    NOISE_V,
    PLAIN,
    base,
    drawn,
    measured,
    rows,
    slopes,
    surprise_covariance,
    wide_manifest,
)

FloatArray = npt.NDArray[np.float64]
FEW = settings(max_examples=25)
POINTS = 40
ODOMETER = 10_000.0
BATTERIES = 300
Z95 = 1.959963984540054
# Standard deviations of a share: a right filter stays inside in all but one run of a thousand.
BINOMIAL = 3.3

MANIFESTS = {
    "points alone": wide_manifest(),
    "along the trip": wide_manifest(discrepancy_correlation=0.2, model_discrepancy_std_v=0.02),
    "trip": wide_manifest(trip_std=(0.02, 0.01)),
    "trip, offset alone": wide_manifest(trip_std=(0.0, 0.03)),
    "everything": wide_manifest((0.02, 0.01), (0.01, 0.0), discrepancy_correlation=0.1),
}


def calibrated(
    manifest: Manifest, trace: TraceArrays, prior: Estimate, odometer: float = ODOMETER
) -> Calibrated:
    return calibration.calibrate([prior], [trace], [odometer], EXACT, manifest, PLAIN)[0]


def kalman(
    prior: Estimate, trace: TraceArrays, manifest: Manifest
) -> tuple[FloatArray, FloatArray, float]:
    """Of the active states beside the trip's own e: mean, covariance, and the NIS."""
    active = layout_of(manifest).active
    n = len(active)
    P = np.zeros((n + 2, n + 2))
    P[:n, :n] = prior.covariance[np.ix_(active, active)]
    P[n:, n:] = np.diag([p.trip_std**2 for p in manifest.parameters])
    H = np.zeros((len(trace.voltage_v), n + 2))
    H[:, :2] = H[:, n:] = slopes(trace.features)
    peer = KalmanFilter(n + 2, len(H))
    peer.x = np.concatenate([np.concatenate([prior.theta, prior.rate])[active], np.zeros(2)])
    peer.P, peer.H, peer.R = P, H, surprise_covariance(manifest, len(H))
    origin = base(trace.features) - slopes(trace.features) @ [1.0, 0.0]
    peer.update(trace.voltage_v - origin)
    nis = float(peer.y @ np.linalg.solve(peer.S, peer.y))
    return peer.x[:n], peer.P[:n, :n], nis


@FEW
@given(st.sampled_from(sorted(MANIFESTS)), st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_a_calibration_is_the_kalman_filter_over_the_battery_and_the_trip(
    case: str, seed: int, points: int
) -> None:
    manifest = MANIFESTS[case]
    rng = np.random.default_rng(seed)
    there = calibration.extrapolate(calibration.prior(manifest), manifest, ODOMETER)
    trace = measured(manifest, drawn(there, manifest, rng)[:2], rng, points)
    found = calibrated(manifest, trace, calibration.prior(manifest))
    x, P, nis = kalman(there, trace, manifest)
    active = layout_of(manifest).active
    mean = np.concatenate([found.estimate.theta, found.estimate.rate])[active]
    std = np.sqrt(np.diag(P))
    np.testing.assert_allclose((mean - x) / std, 0.0, atol=1e-5)
    covariance = found.estimate.covariance[np.ix_(active, active)]
    np.testing.assert_allclose((covariance - P) / np.outer(std, std), 0.0, atol=1e-6)
    assert found.nis == pytest.approx(nis, rel=1e-6)


def test_one_pass_sees_the_discrepancy_along_the_trip_as_many_do() -> None:
    manifest, rng = MANIFESTS["along the trip"], np.random.default_rng(3)
    before = calibration.prior(manifest)
    trace = measured(manifest, np.array([1.03, -0.02]), rng)
    plain = replace(PLAIN, passes=1)
    once = calibration.calibrate([before], [trace], [ODOMETER], EXACT, manifest, plain)[0]
    many = calibrated(manifest, trace, before)
    np.testing.assert_allclose(once.estimate.theta, many.estimate.theta, rtol=1e-6)
    np.testing.assert_allclose(once.estimate.covariance, many.estimate.covariance, rtol=1e-4)


def test_a_kink_that_the_prior_does_not_reach_is_no_surprise() -> None:
    """Over a wide prior the mean of a kinked model is far from the model at the mean."""
    manifest = wide_manifest()
    x = rows(POINTS)
    measured_v = _kinked().predict(x, [1.0, 0.0])
    trace = TraceArrays(np.arange(float(POINTS)), x, measured_v)
    wide = replace(calibration.prior(manifest), covariance=0.09 * np.eye(4))
    found = calibration.calibrate([wide], [trace], [0.0], _kinked(), manifest, PLAIN)[0]
    assert found.nis < 1.0


def _kinked() -> VoltageModel:
    """V = 4 + offset, falling by 0.5 V a km beyond 200 km x gain."""

    class Kinked:
        def predict(self, features: npt.ArrayLike, parameters: npt.ArrayLike) -> FloatArray:
            x, theta = np.atleast_2d(features), np.atleast_2d(parameters)
            beyond = np.maximum(x[:, 0] - 200.0 * theta[:, 0], 0.0)
            return np.asarray(4.0 + theta[:, 1] - 0.5 * beyond)

        def predict_crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
            km, gain = features[:, None, :, 0], parameters[..., 0, None]
            beyond = np.maximum(km - 200.0 * gain, 0.0)
            return np.asarray(4.0 + parameters[..., 1, None] - 0.5 * beyond)

        def predict_one(self, features: Sequence[float], parameters: FloatArray) -> float:
            return float(self.predict(features, parameters)[0])

    return cast("VoltageModel", Kinked())


@pytest.fixture(scope="module", params=sorted(MANIFESTS))
def simulated(
    request: pytest.FixtureRequest,
) -> tuple[Manifest, list[Calibrated], FloatArray, np.random.Generator]:
    """(manifest, calibrations of many batteries, what they truly are)."""
    manifest = MANIFESTS[request.param]
    rng = np.random.default_rng(7)
    prior = calibration.prior(manifest)
    there = calibration.extrapolate(prior, manifest, ODOMETER)
    truths = np.array([drawn(there, manifest, rng) for _ in range(BATTERIES)])
    traces = [measured(manifest, truth[:2], rng, POINTS) for truth in truths]
    found = calibration.calibrate(
        [prior] * BATTERIES, traces, [ODOMETER] * BATTERIES, EXACT, manifest, PLAIN
    )
    return manifest, found, truths, rng


def assert_holds_95_percent(inside: npt.NDArray[np.bool_]) -> None:
    assert abs(inside.mean() - 0.95) < BINOMIAL * np.sqrt(0.95 * 0.05 / inside.size)


def assert_is_chi_square(values: FloatArray, degrees: int) -> None:
    low, high = chi2.ppf([0.025, 0.975], degrees)
    assert_holds_95_percent((low < values) & (values < high))
    spread = np.sqrt(2 * degrees / len(values))
    assert abs(values.mean() - degrees) < BINOMIAL * spread


Simulated = tuple[Manifest, list[Calibrated], FloatArray, np.random.Generator]


def test_the_surprise_of_many_batteries_is_chi_square(simulated: Simulated) -> None:
    assert_is_chi_square(np.array([one.nis for one in simulated[1]]), POINTS)


def test_the_error_of_many_estimates_is_chi_square(simulated: Simulated) -> None:
    manifest, found, truths, _ = simulated
    active = layout_of(manifest).active
    squared = []
    for one, truth in zip(found, truths, strict=True):
        error = np.concatenate([one.estimate.theta, one.estimate.rate])[active] - truth
        covariance = one.estimate.covariance[np.ix_(active, active)]
        squared.append(error @ np.linalg.solve(covariance, error))
    assert_is_chi_square(np.array(squared), len(active))


def test_the_interval_of_each_parameter_holds_95_percent(simulated: Simulated) -> None:
    _, found, truths, _ = simulated
    for k in range(2):
        error = np.array([one.estimate.theta[k] for one in found]) - truths[:, k]
        std = np.sqrt([one.estimate.covariance[k, k] for one in found])
        assert_holds_95_percent(np.abs(error) < Z95 * std)


def test_the_band_of_the_next_trip_holds_95_percent(simulated: Simulated) -> None:
    """Before it begins, and aligned with its first sample; one point of each, independent."""
    manifest, found, truths, rng = simulated
    before: list[bool] = []
    aligned: list[bool] = []
    for one, truth in zip(found, truths, strict=True):
        trip = measured(manifest, truth[:2], rng, POINTS)
        point = slice(int(rng.integers(20, POINTS)), None)
        spread = with_trip_spread(one.estimate, manifest)
        first = trip.features[0], float(trip.voltage_v[0])
        of_trip = calibration.align(one.estimate, *first, EXACT, manifest)
        for kept, estimate in ((before, spread), (aligned, of_trip)):
            voltage, std = calibration.voltage_band(
                estimate, trip.features[point][:1], EXACT, manifest, PLAIN
            )
            kept.append(abs(voltage[0] - trip.voltage_v[point][0]) < Z95 * std[0])
    assert_holds_95_percent(np.array(before))
    if not manifest.discrepancy_correlation:  # else the first sample's error is partly its own
        assert_holds_95_percent(np.array(aligned))


def test_the_band_holds_what_a_parameter_takes_at_one_point() -> None:
    manifest = wide_manifest(point_std=(0.1, 0.0))
    prior, features = calibration.prior(manifest), rows(20)
    _, std = calibration.voltage_band(prior, features, EXACT, manifest, PLAIN)
    expected = slopes(features) ** 2 @ [0.05**2 + 0.1**2, 0.05**2] + 0.01**2 + 0.005**2
    np.testing.assert_allclose(std**2, expected, rtol=1e-9)


@pytest.mark.parametrize(("trips", "weight"), [(0.0, 2.0), (3.0, 3.0), (10.0, 10.0)])
def test_a_short_trip_shows_its_discrepancy_without_bias(trips: float, weight: float) -> None:
    """Two parameters take two of six points; the trips before count as many as they were."""
    manifest, points = wide_manifest(), 6
    trace = battery_with_residuals(0.04, 5, points)
    prior = replace(calibration.prior(manifest), discrepancy=Discrepancy(0.02, trips))
    after = calibrated(manifest, trace, prior, 0.0).estimate
    residual = trace.voltage_v - EXACT.predict(trace.features, after.theta)
    seen = shares(trace.time_s) @ residual**2 * points / (points - 2) - NOISE_V**2
    learned = discrepancy_of(after, manifest)
    assert learned.std_v**2 == pytest.approx((weight * 0.02**2 + seen) / (weight + 1), rel=1e-6)
    assert learned.trips == min(weight + 1, MOST_TRIPS)


def test_one_trip_counts_for_what_it_is_worth() -> None:
    """However exact its points are: n trips are n draws of what trips bring."""
    manifest = wide_manifest(trip_std=(0.0, 0.03), measurement_noise_std_v=1e-5)
    quiet = msgspec.structs.replace(manifest, model_discrepancy_std_v=1e-5)
    trace = measured(quiet, np.array([1.02, 0.01]), np.random.default_rng(1), POINTS)
    estimate = calibration.prior(quiet)
    prior_variance, own = 0.05**2, 0.03**2
    for trips in range(1, 13):
        estimate = replace(calibrated(quiet, trace, estimate, 0.0).estimate, discrepancy=None)
        expected = 1.0 / (1.0 / prior_variance + trips / own)
        assert estimate.covariance[1, 1] >= expected * (1 - 1e-6)
        assert estimate.covariance[1, 1] == pytest.approx(expected, rel=1e-3)
    assert estimate.covariance[0, 0] < 1e-8  # the gain varies from trip to trip by nothing


@pytest.mark.timeout(600)  # ten seconds of work, on a machine that may be busy
def test_a_hundred_thousand_updates_leave_a_covariance() -> None:
    n, rng = 2, np.random.default_rng(2)
    H = rng.normal(size=(3, n))
    weights = ukf.merwe_weights(n)
    sigmas = ukf.sigma_points(np.zeros((1, n)), np.linalg.cholesky(np.eye(n)[None]), weights)
    line = ukf.linearise(sigmas, sigmas @ H.T, weights)
    x, P = np.zeros((1, n)), np.diag([1.0, 1e-8])[None]
    F, Q = np.array([[1.0, 100.0], [0.0, 1.0]]), np.diag([1e-9, 1e-16])
    r, z = np.full((1, 3), 1e-4), rng.normal(size=(100_000, 1, 3))
    kept = np.empty((100_000, n, n))
    for i in range(100_000):
        x, P = x @ F.T, F @ P @ F.T + Q
        y = z[i] - line.z_hat - line.along(x)
        found = ukf.line_update(x, np.linalg.inv(P), line.H_t, y, r + line.unexplained)
        x, P = found.x, found.P
        kept[i] = P[0]
    np.testing.assert_array_equal(kept, kept.swapaxes(1, 2))
    assert (np.linalg.eigvalsh(kept)[:, 0] > 0).all()
    assert np.isfinite(x).all()


def battery_with_residuals(std_v: float, seed: int, points: int = POINTS) -> TraceArrays:
    voltage_v = EXACT.predict(rows(points), [1.0, 0.0])
    own = np.random.default_rng(seed).normal(0.0, std_v, points)
    return TraceArrays(np.arange(float(points)), rows(points), voltage_v + own)


def coverage(estimate: Estimate, manifest: Manifest, std_v: float) -> float:
    long = battery_with_residuals(std_v, 999, points=2000)
    voltage, std = calibration.voltage_band(estimate, long.features, EXACT, manifest, PLAIN)
    return float((np.abs(voltage - long.voltage_v) < Z95 * std).mean())


def test_the_band_follows_a_battery_whose_residuals_double_within_ten_updates() -> None:
    manifest = wide_manifest(model_discrepancy_std_v=0.01)
    usual = float(np.hypot(0.01, 0.01))
    estimate = calibration.prior(manifest)
    for i in range(30):
        trace = battery_with_residuals(usual, i)
        estimate = calibrated(manifest, trace, estimate, 100.0 * i).estimate
        assert discrepancy_of(estimate, manifest).trips <= MOST_TRIPS
    assert discrepancy_of(estimate, manifest).trips == MOST_TRIPS
    assert coverage(estimate, manifest, usual) == pytest.approx(0.95, abs=0.02)
    assert coverage(estimate, manifest, 2 * usual) < 0.75
    for i in range(10):
        trace = battery_with_residuals(2 * usual, 100 + i)
        estimate = calibrated(manifest, trace, estimate, 3000.0 + 100.0 * i).estimate
    assert coverage(estimate, manifest, 2 * usual) > 0.88
    for i in range(30):
        trace = battery_with_residuals(2 * usual, 200 + i)
        estimate = calibrated(manifest, trace, estimate, 4000.0 + 100.0 * i).estimate
    assert coverage(estimate, manifest, 2 * usual) == pytest.approx(0.95, abs=0.02)
    learned = discrepancy_of(estimate, manifest)
    assert learned.std_v == pytest.approx(np.sqrt(4 * usual**2 - 0.01**2), rel=0.1)
    assert learned.trips == MOST_TRIPS


def test_points_that_stand_close_together_say_no_more_of_the_discrepancy_than_their_time() -> None:
    """A trace has half of its points on the last twentieth of the trip, where the model is bad."""
    manifest, before = wide_manifest(), calibration.prior(wide_manifest())
    half = POINTS // 2
    time_s = np.concatenate([np.linspace(0.0, 0.95, half), np.linspace(0.96, 1.0, half)])
    wrong_v = np.where(np.arange(POINTS) < half, 0.01, 0.05) * np.tile([1.0, -1.0], half)
    voltage_v = EXACT.predict(rows(POINTS), [1.0, 0.0]) + wrong_v
    evenly = calibrated(
        manifest, TraceArrays(np.arange(POINTS) / POINTS, rows(POINTS), voltage_v), before
    )
    densely = calibrated(manifest, TraceArrays(time_s, rows(POINTS), voltage_v), before)
    everywhere, whole = (discrepancy_of(one.estimate, manifest).std_v for one in (evenly, densely))
    assert whole < 0.5 * everywhere
