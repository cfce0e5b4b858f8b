"""When health falls to a threshold: closed forms, coverage by simulation, what never happens."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from common import calibration
from common.ageing import law_of, transition, wandered
from common.batch import extrapolate
from common.bundle import Bundle
from common.errors import NoHealthError, QuestionError
from common.estimate import Discrepancy, Estimate, drawn_states, free_states, wandered_states
from common.forecast import Forecast, Mileage, forecast
from common.model import VoltageModel
from tests.support_derived import (
    Z95,
    FloatArray,
    crossing_km,
    estimate_with,
    is_binomial,
    number,
    parameters,
    share_inside,
)
from tests.support_edge import aged_bundle, manifest_of

TRUTHS = 4000
Phi = NormalDist().cdf


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Ages without noise, and the model is right: health is 1 / gain."""
    folder = tmp_path_factory.mktemp("quiet")
    return aged_bundle(folder, parameters=parameters(), model_discrepancy_std_v=0.0)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("noisy")
    return aged_bundle(folder, parameters=parameters(2e-8, 2e-18))


def of(bundle: Bundle, estimate: Estimate, *, seed: int = 0, **question: Any) -> Forecast:
    asked = {"threshold": 0.8, "horizon": 2e5, **question}
    rng, model = np.random.default_rng(seed), VoltageModel(bundle)
    return forecast(estimate, model=model, manifest=bundle.manifest, rng=rng, **asked)


def test_a_certain_battery_crosses_where_the_line_does(quiet: Bundle) -> None:
    estimate = estimate_with(quiet, 1.05, rate=4e-6, odometer=3e4)
    found = of(quiet, estimate)
    expected = 3e4 + (1 / 0.8 - 1.05) / 4e-6
    assert found.odometer.value == pytest.approx(expected, rel=1e-3)
    assert number(found.odometer.high) - number(found.odometer.low) < 1.0
    assert (found.below_share, found.never_share, found.is_below) == (0.0, 0.0, False)
    assert (found.odometer.unit, found.days) == ("km", None)


def test_an_uncertain_rate_gives_the_skewed_interval_of_its_reciprocal(quiet: Bundle) -> None:
    estimate = estimate_with(quiet, 1.05, rate=4e-6, stds=(0.0, 0.0, 8e-7, 0.0))
    found = of(quiet, estimate)
    for end, z in (("low", Z95), ("value", 0.0), ("high", -Z95)):
        expected = 0.2 / (4e-6 + z * 8e-7)
        assert number(getattr(found.odometer, end)) == pytest.approx(expected, rel=0.02)
    assert number(found.odometer.std) > 0


def test_a_random_walk_with_drift_crosses_as_the_inverse_gaussian(
    tmp_path: Path,
) -> None:
    """First passage of a Wiener process: E. Schroedinger, Physikalische Zeitschrift 16, 1915."""
    q, rate, level = 2e-8, 4e-6, 0.2
    walking = aged_bundle(tmp_path, parameters=parameters(q), model_discrepancy_std_v=0.0)
    found = of(walking, estimate_with(walking, 1.05, rate=rate)).odometer

    def passed_by(s: float) -> float:
        root = math.sqrt(q * s)
        reflected = math.exp(2 * rate * level / q) * Phi((-level - rate * s) / root)
        return Phi((rate * s - level) / root) + reflected

    assert passed_by(number(found.low)) == pytest.approx(0.025, abs=0.01)
    assert passed_by(number(found.value)) == pytest.approx(0.5, abs=0.04)
    assert passed_by(number(found.high)) == pytest.approx(0.975, abs=0.01)


def simulated_crossings(bundle: Bundle, estimate: Estimate, horizon: float) -> FloatArray:
    """Batteries that the estimate speaks of, driven by hand in small steps to health 0.8."""
    rng = np.random.default_rng(11)
    P = estimate.covariance
    x = np.concatenate([estimate.theta, estimate.rate])
    gain, offset, rate, _ = rng.multivariate_normal(x, P, TRUTHS).T
    offset = offset + rng.normal(0, bundle.manifest.model_discrepancy_std_v, TRUTHS)
    declared = bundle.manifest.parameters[0]
    level = 0.8 * float(crossing_km(1.0))
    crossed = np.full(TRUTHS, np.inf)
    step = 100.0
    for s in np.arange(0.0, horizon, step):
        crossed[np.isinf(crossed) & (crossing_km(gain, offset) <= level)] = s
        gain = gain + rate * step + rng.normal(0, math.sqrt(declared.process_noise * step), TRUTHS)
        rate = rate + rng.normal(0, math.sqrt(declared.rate_process_noise * step), TRUTHS)
    return estimate.odometer + crossed


@pytest.mark.parametrize("gain", [1.05, 1.15])
def test_the_interval_holds_the_true_crossing_in_95_of_100_cases(
    noisy: Bundle, gain: float
) -> None:
    stds = (0.01, 0.003, 5e-7, 0.0)
    estimate = estimate_with(noisy, gain, rate=4e-6, stds=stds, odometer=1e4)
    found = of(noisy, estimate)
    truths = simulated_crossings(noisy, estimate, 2e5)
    assert is_binomial(share_inside(found.odometer, truths), TRUTHS, 0.95, slack=0.01)
    early = float((truths < number(found.odometer.value)).mean())
    assert is_binomial(early, TRUTHS, 0.5, slack=0.03)


def test_the_lower_the_threshold_the_later_it_is_crossed(noisy: Bundle) -> None:
    estimate = estimate_with(noisy, 1.0, rate=4e-6, stds=(0.01, 0.003, 5e-7, 0.0))
    found = [of(noisy, estimate, threshold=t).odometer for t in (0.95, 0.9, 0.8, 0.7)]
    for end in ("low", "value", "high"):
        ends = [number(getattr(interval, end)) for interval in found]
        assert ends == sorted(ends)


def test_paths_that_never_cross_leave_the_end_open_and_are_counted(quiet: Bundle) -> None:
    estimate = estimate_with(quiet, 1.05, rate=2e-6, stds=(0.0, 0.0, 2e-6, 0.0))
    found = of(quiet, estimate, horizon=1.5e5)
    never = Phi((0.2 / 1.5e5 - 2e-6) / 2e-6)  # rates below what the horizon needs
    assert found.never_share == pytest.approx(never, abs=0.01)
    assert found.odometer.value is not None
    assert (found.odometer.high, found.odometer.std) == (None, None)
    nowhere = of(quiet, estimate_with(quiet, 1.05, rate=0.0))
    assert nowhere.never_share == 1.0
    assert (nowhere.odometer.value, nowhere.odometer.low) == (None, None)


def test_a_battery_that_is_below_already_is_said_to_be(quiet: Bundle) -> None:
    estimate = estimate_with(quiet, 1.3, rate=4e-6, stds=(0.05, 0.0, 0.0, 0.0), odometer=8e4)
    found = of(quiet, estimate, mileage=Mileage(50.0))
    assert found.is_below
    assert found.below_share == pytest.approx(Phi((1.3 - 1.25) / 0.05), abs=0.01)
    assert found.odometer.value == 8e4
    assert found.days is not None
    assert found.days.value == 0.0


def test_days_are_distance_over_mileage_with_the_uncertainty_of_both(quiet: Bundle) -> None:
    sure = estimate_with(quiet, 1.05, rate=4e-6, odometer=1e4)
    exact = of(quiet, sure, mileage=Mileage(50.0)).days
    assert exact is not None
    assert exact.value == pytest.approx(0.2 / 4e-6 / 50.0, rel=1e-3)
    assert number(exact.high) - number(exact.low) < 1.0
    by_mileage = of(quiet, sure, mileage=Mileage(50.0, 5.0)).days
    assert by_mileage is not None
    assert number(by_mileage.std) == pytest.approx(0.1 * number(by_mileage.value), rel=0.05)
    hardly = of(quiet, sure, mileage=Mileage(50.0, 25.0)).days
    assert hardly is not None  # the median of a log-normal stands below its mean
    assert number(hardly.value) == pytest.approx(number(exact.value) * math.sqrt(1.25), rel=0.01)
    unsure = estimate_with(quiet, 1.05, rate=4e-6, stds=(0.0, 0.0, 4e-7, 0.0))
    both = of(quiet, unsure, mileage=Mileage(50.0, 5.0)).days
    assert both is not None
    assert number(both.std) == pytest.approx(math.sqrt(2) * number(by_mileage.std), rel=0.1)


@pytest.mark.parametrize(
    ("question", "where"),
    [
        *(({"threshold": t}, "threshold") for t in (0.0, 1.0, -0.5, 1.5, math.nan)),
        *(({"horizon": h}, "horizon") for h in (0.0, -1.0, math.inf, math.nan)),
        *(
            ({"mileage": m}, "mileage")
            for m in (Mileage(0.0), Mileage(-3.0), Mileage(math.nan), Mileage(50.0, -1.0))
        ),
    ],
)
def test_a_question_that_makes_no_sense_says_where(
    quiet: Bundle, question: dict[str, Any], where: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        of(quiet, estimate_with(quiet), **question)
    assert caught.value.where == where


def test_without_a_health_section_there_is_no_forecast(tmp_path: Path) -> None:
    plain = aged_bundle(tmp_path, health=None)
    with pytest.raises(NoHealthError):
        of(plain, estimate_with(plain))


def test_ageing_that_speeds_up_crosses_on_its_exponential(tmp_path: Path) -> None:
    growth = 2e-5
    speeding = aged_bundle(
        tmp_path, parameters=parameters(rate_growth=growth), model_discrepancy_std_v=0.0
    )
    estimate = estimate_with(speeding, 1.05, rate=2e-6)
    expected = math.log1p(0.2 * growth / 2e-6) / growth
    assert of(speeding, estimate).odometer.value == pytest.approx(expected, rel=2e-3)
    slower = replace(estimate, growth=np.array([1e-5, 0.0]))  # as learned for this vehicle
    expected = math.log1p(0.2 * 1e-5 / 2e-6) / 1e-5
    assert of(speeding, slower).odometer.value == pytest.approx(expected, rel=2e-3)


def test_a_vehicles_own_discrepancy_and_the_points_own_spread_count(tmp_path: Path) -> None:
    spread = aged_bundle(
        tmp_path, parameters=parameters(point_std=0.02), model_discrepancy_std_v=0.0
    )
    sure = estimate_with(spread, 1.05, rate=4e-6)
    by_points = of(spread, sure).odometer
    assert number(by_points.std) == pytest.approx(0.02 / 4e-6, rel=0.05)
    worse = of(spread, replace(sure, discrepancy=Discrepancy(0.01, 5.0))).odometer
    assert number(worse.std) > 1.1 * number(by_points.std)


def test_sampled_states_have_the_moments_that_extrapolation_gives(noisy: Bundle) -> None:
    """Paths and the extrapolated estimate agree, in one step or in several."""
    estimate = estimate_with(noisy, 1.05, rate=4e-6, stds=(0.01, 0.003, 5e-7, 0.0))
    rng = np.random.default_rng(2)
    states = drawn_states(estimate, noisy.manifest, rng.standard_normal((100_000, 4)))
    for step in (5e3, 1e4, 2e4):
        noise = rng.standard_normal(states.shape)
        states = wandered_states(states, estimate, noisy.manifest, step, noise)
    (x,), (P,) = free_states([extrapolate(estimate, noisy.manifest, 3.5e4)], noisy.manifest)
    std = np.sqrt(np.diag(P))
    assert std[3] == 0.0
    assert (states[:, 3] == 0.0).all()
    scaled = (states - x)[:, :3] / std[:3]
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=0.015)
    wanted = P[:3, :3] / np.outer(std[:3], std[:3])
    np.testing.assert_allclose(np.cov(scaled.T), wanted, atol=0.02)


@pytest.mark.parametrize("growth", [0.0, 3e-5])
def test_a_path_has_the_noise_of_its_own_rate(growth: float) -> None:
    declared = parameters(2e-8, 2e-18, rate_volatility=2e-3, rate_growth=growth)
    law = law_of(manifest_of(b"", declared))
    rng = np.random.default_rng(8)
    for rate in (0.0, 4e-6, 4e-5):
        states = np.tile([1.0, 0.0, rate, 0.0], (100_000, 1))
        moved = wandered(law, states, 1e4, rng.standard_normal(states.shape))
        F, Q = transition(law, np.array([rate, 0.0]), 1e4)
        std = np.sqrt(np.diag(Q))[[0, 2]]
        scaled = (moved - F @ states[0])[:, [0, 2]] / std
        np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=0.015)
        wanted = Q[np.ix_([0, 2], [0, 2])] / np.outer(std, std)
        np.testing.assert_allclose(np.cov(scaled.T), wanted, atol=0.02)


def test_the_transition_over_two_steps_is_that_over_both() -> None:
    law = law_of(manifest_of(b"", parameters(2e-8, 2e-18, rate_growth=3e-5)))
    rate = np.array([4e-6, 0.0])
    F1, Q1 = transition(law, rate, 3e3)
    F2, Q2 = transition(law, (F1 @ [0.0, 0.0, *rate])[2:], 5e3)
    F, Q = transition(law, rate, 8e3)
    np.testing.assert_allclose(F2 @ F1, F, rtol=1e-12)
    np.testing.assert_allclose(F2 @ Q1 @ F2.T + Q2, Q, rtol=1e-8)


def test_the_prior_of_a_bundle_can_be_asked_too(noisy: Bundle) -> None:
    found = of(noisy, calibration.prior(noisy.manifest))
    assert 0 < found.below_share < 0.1
    assert found.never_share > 0.1
