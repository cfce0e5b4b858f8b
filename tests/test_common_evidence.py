"""A battery that drifts, one that changed and a sensor that lies are told apart, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2

from common import calibration, evidence_check
from common.bundle import Bundle
from common.calibration import Calibrated, Estimate, Settings
from common.calibrator import Case, Decision, Decline, MakeRevision, decide
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.support_calibration import EXACT, PLAIN, measured, wide_manifest
from tests.support_edge import aged_bundle

FloatArray = npt.NDArray[np.float64]
NOISE_V = 0.01


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def trace_of(bundle: Bundle, gain: float, seed: int = 0, points: int = 50) -> TraceArrays:
    features = np.column_stack([np.linspace(0.0, 300.0, points), np.full(points, 500.0)])
    noise = np.random.default_rng(seed).normal(0.0, NOISE_V, points)
    voltage_v = VoltageModel(bundle).predict(features, [gain, 0.0]) + noise
    return TraceArrays(60.0 * np.arange(points), features, voltage_v)


@pytest.fixture(scope="module")
def known(bundle: Bundle) -> Estimate:
    """A battery of gain 1.1, well known after six trips."""
    estimate = calibration.prior(bundle.manifest)
    for seed in range(6):
        estimate = calibrated(bundle, trace_of(bundle, 1.1, seed), estimate, 100.0 * seed).estimate
    return estimate


def calibrated(
    bundle: Bundle, trace: TraceArrays, prior: Estimate, odometer: float = 1000.0
) -> Calibrated:
    return calibration.calibrate(
        [prior], [trace], [odometer], VoltageModel(bundle), bundle.manifest, Settings()
    )[0]


def decided(bundle: Bundle, trace: TraceArrays, known: Estimate, failures: int = 0) -> Decision:
    case = Case(trace, 1000.0, known, known, failures)
    (decision,) = decide([case], VoltageModel(bundle), bundle.manifest, Settings())
    return decision


def problem(trace: TraceArrays, residual: FloatArray, manifest: Manifest) -> str:
    (found,) = evidence_check.problems(
        trace.voltage_v[None], residual[None], np.array([0.005]), manifest
    )
    return found


def saw_tooth(trace: TraceArrays) -> TraceArrays:
    """Up and down by 0.4 V: nothing that a battery of this model does."""
    swing = 0.4 * np.where(np.arange(len(trace.time_s)) % 4 < 2, 1.0, -1.0)
    return replace(trace, voltage_v=trace.voltage_v + swing)


def stuck(trace: TraceArrays, since: int = 0) -> TraceArrays:
    voltage_v = trace.voltage_v.copy()
    voltage_v[since:] = voltage_v[since]
    return replace(trace, voltage_v=voltage_v)


def test_what_the_prior_allows_is_drift(bundle: Bundle, known: Estimate) -> None:
    found = calibrated(bundle, trace_of(bundle, 1.105, 9), known)
    assert (found.finding, found.problem) == ("drift", "")
    assert found.error_after_v < bundle.manifest.error_threshold_v


def test_what_the_prior_does_not_allow_but_parameters_explain_is_a_changed_battery(
    bundle: Bundle, known: Estimate
) -> None:
    found = calibrated(bundle, trace_of(bundle, 0.9, 9), known)
    assert (found.finding, found.problem) == ("changed_battery", "")
    assert found.error_after_v < bundle.manifest.error_threshold_v
    assert found.estimate.theta[0] == pytest.approx(0.9, abs=0.03)
    assert isinstance(decided(bundle, trace_of(bundle, 0.9, 9), known), MakeRevision)


@pytest.mark.parametrize(("shift_v", "finding"), [(0.1, "drift"), (0.5, "changed_battery")])
def test_a_jump_that_the_fit_itself_follows_is_a_changed_battery(
    shift_v: float, finding: str
) -> None:
    """On a linear model the prior need not be opened for it: 2 and 10 standard deviations."""
    manifest = wide_manifest()
    trace = measured(manifest, np.array([1.0, shift_v]), np.random.default_rng(3))
    prior = calibration.prior(manifest)
    (found,) = calibration.calibrate([prior], [trace], [0.0], EXACT, manifest, PLAIN)
    assert found.estimate.theta[1] == pytest.approx(shift_v, rel=0.1)
    assert found.finding == finding


def test_what_no_parameters_explain_is_said_with_figures(bundle: Bundle, known: Estimate) -> None:
    found = calibrated(bundle, saw_tooth(trace_of(bundle, 1.1, 9)), known)
    assert found.finding == "unexplained"
    assert found.problem.startswith("no parameters explain this trip: the best leave 0.")
    assert "times the noise and discrepancy" in found.problem
    assert found.estimate.discrepancy == known.discrepancy  # it teaches nothing of the model


@pytest.mark.parametrize("since", [0, 20])
def test_a_sensor_that_is_stuck_is_named(bundle: Bundle, known: Estimate, since: int) -> None:
    trace = stuck(trace_of(bundle, 1.1, 9), since)
    found = calibrated(bundle, trace, known)
    assert found.finding == "unexplained"
    assert found.problem.startswith(
        f"the voltage sensor is stuck at {trace.voltage_v[-1]:.4g} V while the model moves by "
    )
    decision = decided(bundle, trace, known)
    assert decision == Decline(found.problem)


def test_a_battery_at_rest_is_not_a_stuck_sensor(bundle: Bundle, known: Estimate) -> None:
    """The model does not move either."""
    features = np.tile([100.0, 500.0], (50, 1))
    voltage_v = VoltageModel(bundle).predict(features, known.theta)
    trace = TraceArrays(60.0 * np.arange(50), features, voltage_v)
    assert calibrated(bundle, trace, known).problem == ""


@pytest.mark.parametrize("points", [2, 7])
def test_a_few_equal_voltages_are_not_a_stuck_sensor(bundle: Bundle, points: int) -> None:
    trace = stuck(trace_of(bundle, 1.1, points=points))
    residual = np.linspace(0.0, 0.2, points)
    assert "stuck" not in problem(trace, residual, bundle.manifest)


@pytest.mark.parametrize(
    ("stds", "threshold_v", "explained"),
    [(4.9, 0.03, True), (5.1, 0.03, False), (5.1, 0.06, True), (1.0, 0.001, True)],
)
def test_five_times_noise_and_discrepancy_is_no_fit_unless_it_is_below_the_threshold(
    bundle: Bundle,
    stds: float,
    threshold_v: float,
    explained: bool,  # noqa: FBT001
) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, error_threshold_v=threshold_v)
    trace = trace_of(bundle, 1.0)
    residual = stds * np.hypot(NOISE_V, 0.005) * np.where(np.arange(50) % 2, 1.0, -1.0)
    assert (problem(trace, residual, manifest) == "") is explained


@pytest.mark.parametrize("states", [1, 2, 3, 4, 8, 64])
def test_a_jump_is_what_one_drift_in_a_million_exceeds(states: int) -> None:
    """To a sixth: so far out the approximation by a normal distribution is on the safe side."""
    shifts = chi2.ppf(1 - 1e-6, states) * np.array([1.0, 7 / 6])
    assert evidence_check.are_jumps(shifts, states).tolist() == [False, True]


@pytest.mark.parametrize("spoil", [saw_tooth, stuck])
def test_a_refused_trace_leaves_everything_as_it_was(
    bundle: Bundle, known: Estimate, spoil: Callable[[TraceArrays], TraceArrays]
) -> None:
    kept = [known.theta.copy(), known.rate.copy(), known.covariance.copy()]
    good = trace_of(bundle, 1.25, 9)
    alone = decided(bundle, good, known)
    bad = spoil(good)
    assert isinstance(decided(bundle, bad, known), Decline)
    for was, now in zip(kept, (known.theta, known.rate, known.covariance), strict=True):
        np.testing.assert_array_equal(was, now)
    after = decided(bundle, good, known, failures=1)
    assert isinstance(alone, MakeRevision)
    assert isinstance(after, MakeRevision)
    np.testing.assert_array_equal(alone.calibrated.estimate.theta, after.calibrated.estimate.theta)


def test_a_bad_trace_in_a_batch_spoils_no_other(bundle: Bundle, known: Estimate) -> None:
    good = trace_of(bundle, 1.25, 9)
    cases = [Case(trace, 1000.0, known, known) for trace in (good, saw_tooth(good), good)]
    first, bad, last = decide(cases, VoltageModel(bundle), bundle.manifest, Settings())
    assert isinstance(bad, Decline)
    alone = decided(bundle, good, known)
    assert isinstance(alone, MakeRevision)
    for found in (first, last):
        assert isinstance(found, MakeRevision)
        np.testing.assert_allclose(
            found.calibrated.estimate.theta, alone.calibrated.estimate.theta, atol=1e-6
        )


def test_what_comes_a_third_time_is_believed(bundle: Bundle, known: Estimate) -> None:
    """The best parameters do not explain it, but the battery is not the one that it was."""
    odd = trace_of(bundle, 0.8, 9)
    swing = 0.12 * np.where(np.arange(50) % 4 < 2, 1.0, -1.0)
    odd = replace(odd, voltage_v=odd.voltage_v + swing)
    for failures in (0, 1):
        decision = decided(bundle, odd, known, failures)
        assert isinstance(decision, Decline)
        assert "no parameters explain" in decision.reason
    believed = decided(bundle, odd, known, failures=2)
    assert isinstance(believed, MakeRevision)
    assert believed.calibrated.finding == "unexplained"
    assert believed.calibrated.error_after_v < believed.error_before_v


def test_what_would_not_lower_the_error_is_declined_however_often_it_comes(
    bundle: Bundle, known: Estimate
) -> None:
    """Here the vehicle already predicts every point exactly."""
    trace, here = trace_of(bundle, 1.1), replace(known, odometer=1000.0)
    exact = VoltageModel(bundle).predict(trace.features, known.theta)
    decision = decided(bundle, replace(trace, voltage_v=exact), here, failures=99)
    assert isinstance(decision, Decline)
    assert "would not lower the error on the trace" in decision.reason
