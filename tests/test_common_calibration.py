"""A calibration finds what made the trace, says how sure it is, and ages with the odometer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import calibration, fitting
from common.bundle import Bundle
from common.calibration import Calibrated, Estimate, Settings
from common.errors import CalibrationError
from common.manifest import Manifest
from common.model import VoltageModel
from common.revision import decode_revision, encode_revision
from common.trace import TraceArrays
from tests.support_edge import AGEING, aged_bundle, linear_bundle, manifest_of, revision_for

PLAIN = Settings(huber=1e9)
NOISE_V = 0.01
Z95 = 1.96


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def trace_of(bundle: Bundle, theta: list[float], points: int = 50, seed: int = 0) -> TraceArrays:
    """A trip of 300 km as the BMS measures it."""
    features = np.column_stack([np.linspace(0.0, 300.0, points), np.full(points, 500.0)])
    voltage = VoltageModel(bundle).predict(features, theta)
    noise = np.random.default_rng(seed).normal(0.0, NOISE_V, points)
    return TraceArrays(np.arange(float(points)), features, voltage + noise)


def calibrated(
    bundle: Bundle,
    trace: TraceArrays,
    prior: Estimate | None = None,
    odometer: float = 0.0,
    settings: Settings | None = None,
) -> Calibrated:
    manifest, model = bundle.manifest, VoltageModel(bundle)
    before = prior or calibration.prior(manifest)
    found = calibration.calibrate(
        [before], [trace], [odometer], model, manifest, settings or Settings()
    )
    return found[0]


def stds(estimate: Estimate) -> list[float]:
    found: list[float] = np.sqrt(np.diag(estimate.covariance)).tolist()
    return found


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (1.08, 0.0), (0.9, -0.03), (1.15, 0.05)])
def test_the_parameters_that_made_a_trace_are_found_within_the_band(
    aged: Bundle, gain: float, offset: float
) -> None:
    found = calibrated(aged, trace_of(aged, [gain, offset]))
    for value, std, truth in zip(
        found.estimate.theta, stds(found.estimate), [gain, offset], strict=False
    ):
        assert abs(value - truth) <= Z95 * std
    assert found.error_after_v == pytest.approx(0.8 * NOISE_V, rel=0.25)
    assert found.error_after_v <= found.error_before_v
    assert stds(found.estimate)[0] < 0.5 * aged.manifest.parameters[0].prior_std


@pytest.mark.parametrize("settings", [PLAIN, replace(PLAIN, passes=1), Settings()])
def test_the_filter_is_as_sure_as_it_should_be_over_two_hundred_batteries(
    tmp_path: Path, settings: Settings
) -> None:
    bundle = linear_bundle(tmp_path, model_discrepancy_std_v=0.0)
    manifest, before = bundle.manifest, calibration.prior(bundle.manifest)
    spread = np.array([p.prior_std for p in manifest.parameters])
    truths = before.theta + np.random.default_rng(1).normal(size=(200, 2)) * spread
    traces = [trace_of(bundle, theta.tolist(), seed=i) for i, theta in enumerate(truths)]
    found = calibration.calibrate(
        [before] * 200, traces, [0.0] * 200, VoltageModel(bundle), manifest, settings
    )
    estimates = np.stack([one.estimate.theta for one in found])
    bands = Z95 * np.stack([stds(one.estimate)[:2] for one in found])
    coverage = (np.abs(estimates - truths) <= bands).mean(axis=0)
    assert all((coverage >= 0.90) & (coverage <= 0.99))
    if settings.huber == PLAIN.huber:
        assert 0.93 < np.mean([one.nis / one.points for one in found]) < 1.07


def test_a_spoilt_point_moves_the_robust_estimate_less(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    clean = trace_of(bundle, [1.02, 0.0])
    spoilt = replace(clean, voltage_v=clean.voltage_v - 0.5 * (np.arange(50) == 25))

    def moved(settings: Settings) -> float:
        before = calibrated(bundle, clean, settings=settings).estimate.theta
        after = calibrated(bundle, spoilt, settings=settings).estimate.theta
        return float(np.abs(after - before).max())

    assert moved(Settings()) < 0.3 * moved(PLAIN)


def test_a_battery_that_was_replaced_is_found_again_where_the_plain_update_stays_wrong(
    aged: Bundle,
) -> None:
    learned = calibrated(aged, trace_of(aged, [1.25, 0.0])).estimate
    sure = replace(learned, covariance=learned.covariance * 1e-4)
    new_battery = trace_of(aged, [0.95, 0.0], seed=1)
    reopened = calibrated(aged, new_battery, sure)
    assert reopened.finding == "changed_battery"
    assert reopened.error_after_v < aged.manifest.error_threshold_v
    assert abs(reopened.estimate.theta[0] - 0.95) < Z95 * stds(reopened.estimate)[0]
    plain = calibrated(aged, new_battery, sure, settings=Settings(passes=1))
    assert plain.error_after_v > aged.manifest.error_threshold_v


def test_a_battery_far_beyond_what_a_new_one_may_be_is_found(aged: Bundle) -> None:
    """Twenty of the manifest's standard deviations away: a worn pack that nobody saw grow old."""
    narrow = [msgspec.structs.replace(p, prior_std=0.02) for p in aged.manifest.parameters]
    manifest = msgspec.structs.replace(aged.manifest, parameters=narrow)
    trace, model = trace_of(aged, [1.9, 0.3]), VoltageModel(aged)
    before = calibration.prior(manifest)
    (found,) = calibration.calibrate([before], [trace], [0.0], model, manifest, Settings())
    assert found.finding == "changed_battery"
    assert found.error_after_v < manifest.error_threshold_v
    np.testing.assert_allclose(found.estimate.theta, [1.9, 0.3], atol=0.02)


def test_an_opened_prior_leaves_the_trip_what_is_the_trips_own(tmp_path: Path) -> None:
    """A trip that no parameters explain opens the prior; were trips as different as batteries, the
    battery would take half of it."""
    moved = []
    for trip_std in (0.0, AGEING[0].prior_std):
        gain = msgspec.structs.replace(AGEING[0], trip_std=trip_std)
        bundle = aged_bundle(tmp_path / str(trip_std), parameters=[gain, AGEING[1]])
        sure = calibration.prior(bundle.manifest)
        sure = replace(sure, covariance=sure.covariance * 1e-6)
        trace = trace_of(bundle, [1.3, 0.0])
        odd = replace(trace, voltage_v=trace.voltage_v + 0.12 * np.cos(np.arange(50.0)))
        found = calibrated(bundle, odd, sure)
        assert found.error_after_v > bundle.manifest.error_threshold_v
        moved.append(found.estimate.theta[0] - 1.0)
    assert moved[0] > 0.2
    assert 0.3 * moved[0] < moved[1] < 0.7 * moved[0]


def test_a_trace_that_the_prior_explains_does_not_reopen_it(aged: Bundle) -> None:
    learned = calibrated(aged, trace_of(aged, [1.1, 0.0])).estimate
    again = calibrated(aged, trace_of(aged, [1.1, 0.0], seed=2), learned)
    assert again.finding == "drift"
    assert stds(again.estimate)[0] < stds(learned)[0]


@pytest.mark.parametrize("settled", [fitting.SETTLED, 0.5])
def test_a_mixed_batch_equals_one_by_one(
    aged: Bundle, monkeypatch: pytest.MonkeyPatch, settled: float
) -> None:
    """Also where some filters of the batch settle earlier than others."""
    monkeypatch.setattr(fitting, "SETTLED", settled)
    cases = [([1.05, 0.0], 50), ([0.9, 0.02], 12), ([1.3, 0.0], 50), ([1.0, 0.0], 2)]
    traces = [trace_of(aged, theta, points) for theta, points in cases]
    priors = [calibration.prior(aged.manifest, 100.0 * i) for i in range(4)]
    odometers = [0.0, 5000.0, 200.0, 9000.0]
    together = calibration.calibrate(
        priors, traces, odometers, VoltageModel(aged), aged.manifest, Settings()
    )
    for i, found in enumerate(together):
        alone = calibrated(aged, traces[i], priors[i], odometers[i])
        assert (found.points, found.finding) == (alone.points, alone.finding)
        assert found.estimate.odometer == alone.estimate.odometer == max(odometers[i], 100.0 * i)
        np.testing.assert_allclose(found.estimate.theta, alone.estimate.theta, atol=1e-6)
        np.testing.assert_allclose(found.estimate.covariance, alone.estimate.covariance, rtol=1e-3)
        assert found.error_after_v == pytest.approx(alone.error_after_v, abs=1e-6)


def test_the_ageing_rate_is_learned_from_two_traces(aged: Bundle) -> None:
    first = calibrated(aged, trace_of(aged, [1.0, 0.0]), odometer=10_000.0).estimate
    later = calibrated(aged, trace_of(aged, [1.1, 0.0], seed=1), first, 110_000.0).estimate
    assert abs(later.rate[0] - 1e-6) < Z95 * stds(later)[2]
    assert later.rate[0] > 2e-7
    assert later.rate[1] == 0.0
    np.testing.assert_array_equal(later.covariance[3], np.zeros(4))


def test_a_covariance_that_is_none_is_a_calibration_error(aged: Bundle) -> None:
    broken = replace(calibration.prior(aged.manifest), covariance=-np.eye(4))
    with pytest.raises(CalibrationError, match="positive definite"):
        calibrated(aged, trace_of(aged, [1.0, 0.0]), broken)
    assert not calibration.is_positive_definite(broken, aged.manifest)
    assert calibration.is_positive_definite(calibration.prior(aged.manifest), aged.manifest)


def test_the_band_holds_the_noise_and_the_uncertainty_of_the_parameters(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    estimate = calibration.prior(bundle.manifest)
    features = np.array([[100.0, 500.0], [300.0, 500.0]])
    voltage, std = calibration.voltage_band(
        estimate, features, VoltageModel(bundle), bundle.manifest, Settings()
    )
    expected = 0.05**2 * voltage**2 + 0.05**2 + 0.01**2 + 0.005**2
    np.testing.assert_allclose(std**2, expected, rtol=1e-4)
    np.testing.assert_allclose(voltage, VoltageModel(bundle).predict(features, [1.0, 0.0]))


AGED = manifest_of(b"")


def some_estimate(manifest: Manifest, odometer: float = 100.0) -> Estimate:
    root = np.random.default_rng(0).normal(size=(4, 4)) * np.array([[0.1], [0.1], [1e-6], [0.0]])
    return Estimate(np.array([1.1, 0.02]), np.array([2e-6, 0.0]), root @ root.T, odometer)


def test_extrapolation_is_exact() -> None:
    before = some_estimate(AGED)
    after = calibration.extrapolate(before, AGED, 1100.0)
    ds, q, q_offset, q_rate = 1000.0, 1e-8, 1e-9, 1e-16
    F = np.array([[1, 0, ds, 0], [0, 1, 0, ds], [0, 0, 1, 0], [0, 0, 0, 1]])
    Q = np.diag([q * ds + q_rate * ds**3 / 3, q_offset * ds, q_rate * ds, 0.0])
    Q[0, 2] = Q[2, 0] = q_rate * ds**2 / 2
    np.testing.assert_allclose(after.theta, [1.1 + 2e-6 * ds, 0.02], rtol=1e-14)
    np.testing.assert_allclose(after.covariance, F @ before.covariance @ F.T + Q, rtol=1e-12)
    assert after.odometer == 1100.0


@given(st.floats(1e-3, 1e5), st.floats(1e-3, 1e5))
def test_two_steps_are_one(first: float, second: float) -> None:
    before = some_estimate(AGED)
    once = calibration.extrapolate(before, AGED, 100.0 + first + second)
    halfway = calibration.extrapolate(before, AGED, 100.0 + first)
    twice = calibration.extrapolate(halfway, AGED, 100.0 + first + second)
    np.testing.assert_allclose(twice.theta, once.theta, rtol=1e-12)
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-6, atol=1e-16)


@given(st.floats(0, 100.0))
def test_a_battery_does_not_grow_younger(odometer: float) -> None:
    before = some_estimate(AGED)
    assert calibration.extrapolate(before, AGED, odometer) is before


@given(st.lists(st.floats(-1e6, 1e6), min_size=18, max_size=18))
def test_a_revision_carries_its_estimate_exactly(numbers: list[float]) -> None:
    made = msgspec.structs.replace(
        revision_for(Bundle(AGED, b"", "0" * 64, Path())),
        theta=numbers[:2],
        rate=numbers[2:4],
        covariance=numbers[4:14],
        odometer=abs(numbers[14]),
    )
    estimate = calibration.estimate_of(decode_revision(encode_revision(made)))
    assert estimate.theta.tolist() == numbers[:2]
    assert estimate.rate.tolist() == numbers[2:4]
    assert calibration.upper_triangle(estimate.covariance) == numbers[4:14]
    assert np.array_equal(estimate.covariance, estimate.covariance.T)
    assert estimate.odometer == abs(numbers[14])


@pytest.mark.parametrize(
    ("theta", "inside"),
    [
        ([1.0, 0.0], True),
        ([0.5, 0.5], True),
        ([0.4999, 0.0], False),
        ([2.0001, 0.0], False),
        ([1.0, 0.5001], False),
        ([1.0, -0.5001], False),
        ([np.nan, 0.0], False),
        ([np.inf, 0.0], False),
    ],
)
def test_the_bounds_are_the_manifests(theta: list[float], inside: bool) -> None:  # noqa: FBT001
    estimate = replace(calibration.prior(AGED), theta=np.array(theta))
    assert calibration.is_inside_bounds(estimate, AGED) is inside


@pytest.mark.parametrize("field", ["rate", "covariance"])
def test_numbers_that_are_not_finite_are_never_inside_the_bounds(field: str) -> None:
    estimate = calibration.prior(AGED)
    spoilt = getattr(estimate, field).copy()
    spoilt.flat[0] = np.nan
    assert not calibration.is_inside_bounds(replace(estimate, **{field: spoilt}), AGED)
