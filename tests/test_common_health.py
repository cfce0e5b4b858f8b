"""State of health and what is left: the closed form, skewed intervals that hold, honest gaps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common import calibration
from common.batch import extrapolate
from common.bundle import Bundle
from common.errors import NoHealthError, QuestionError
from common.estimate import Estimate
from common.health import StateOfHealth, state_of_health
from common.model import VoltageModel
from common.remaining import Remaining, remaining_until_cutoff
from common.sampling import interval_of, standard_normals
from tests.support_derived import (
    Z95,
    crossing_km,
    estimate_with,
    is_binomial,
    number,
    parameters,
    share_inside,
)
from tests.support_edge import aged_bundle

TRUTHS = 20_000
NEW_KM = float(crossing_km(1.0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With process noise that counts."""
    folder = tmp_path_factory.mktemp("noisy")
    return aged_bundle(folder, parameters=parameters(2e-8, 1e-16))


def health_of(bundle: Bundle, estimate: Estimate, seed: int = 0, **changes: Any) -> StateOfHealth:
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    rng = np.random.default_rng(seed)
    found = state_of_health(estimate, VoltageModel(bundle), manifest, rng)
    assert found is not None
    return found


def test_health_is_relative_to_new_and_its_spread_comes_from_the_covariance(bundle: Bundle) -> None:
    estimate = estimate_with(bundle, 1.25, stds=(0.01, 0.005, 0.0, 0.0))
    found = health_of(bundle, estimate)
    assert found.ratio.value == pytest.approx(1 / 1.25, abs=1e-5)
    assert found.usable.value == pytest.approx(float(crossing_km(1.25)), abs=2e-3)
    per_volt = 100 / 0.6 / (1 - (0.4 / 0.6) ** 2) / 1.25 / NEW_KM
    of_gain, of_offset = 0.01 * 0.8 / 1.25, 0.005 * per_volt
    of_discrepancy = bundle.manifest.model_discrepancy_std_v * per_volt
    expected = math.hypot(of_gain, of_offset, of_discrepancy)
    assert found.ratio.std == pytest.approx(expected, rel=0.03)


def test_the_models_discrepancy_alone_moves_the_crossing_by_itself_over_the_slope(
    bundle: Bundle,
) -> None:
    found = health_of(bundle, estimate_with(bundle), model_discrepancy_std_v=0.004).usable
    slope_v_per_km = 0.6 / 100 * (1 - (0.4 / 0.6) ** 2)
    assert found.std == pytest.approx(0.004 / slope_v_per_km, rel=0.02)
    exact = health_of(bundle, estimate_with(bundle), model_discrepancy_std_v=0.0).usable
    assert exact.std == pytest.approx(0.0, abs=1e-9)
    assert exact.low == exact.high == pytest.approx(exact.value)


def test_the_interval_of_a_skewed_health_holds_the_truth_as_often_on_either_side(
    bundle: Bundle,
) -> None:
    estimate = estimate_with(bundle, 1.1, stds=(0.02, 0.05, 0.0, 0.0))
    found = health_of(bundle, estimate).usable
    truth = crossing_km(*drawn_truths(bundle, estimate))
    assert is_binomial(float((truth < number(found.low)).mean()), TRUTHS, 0.025)
    assert is_binomial(float((truth > number(found.high)).mean()), TRUTHS, 0.025)
    value, std = number(found.value), number(found.std)
    assert (truth < value - Z95 * std).mean() < 0.02  # what two moments would have claimed
    assert (truth > value + Z95 * std).mean() > 0.03


def drawn_truths(bundle: Bundle, estimate: Estimate) -> tuple[Any, Any]:
    """Gain, and offset with discrepancy, of batteries that the estimate speaks of."""
    rng = np.random.default_rng(99)
    P = estimate.covariance[:2, :2]
    gain, offset = rng.multivariate_normal(estimate.theta, P, TRUTHS).T
    return gain, offset + rng.normal(0, bundle.manifest.model_discrepancy_std_v, TRUTHS)


def test_health_further_on_holds_the_truth_that_wandered_there(noisy: Bundle) -> None:
    here = estimate_with(noisy, 1.05, rate=4e-6, stds=(0.01, 0.002, 5e-7, 0.0), odometer=1e4)
    found = health_of(noisy, extrapolate(here, noisy.manifest, 4e4)).ratio
    rng = np.random.default_rng(7)
    gain = rng.normal(1.05, 0.01, TRUTHS)
    rate = rng.normal(4e-6, 5e-7, TRUTHS)
    for _ in range(300):  # 100 km a step, by hand
        gain += rate * 100.0 + rng.normal(0, math.sqrt(2e-8 * 100.0), TRUTHS)
        rate += rng.normal(0, math.sqrt(1e-16 * 100.0), TRUTHS)
    offset = rng.normal(0, math.hypot(0.002, noisy.manifest.model_discrepancy_std_v), TRUTHS)
    truth = crossing_km(gain, offset) / NEW_KM
    assert is_binomial(share_inside(found, truth), TRUTHS, 0.95)


def test_further_on_health_is_lower_and_less_certain(noisy: Bundle) -> None:
    here = estimate_with(noisy, 1.05, rate=4e-6, stds=(0.01, 0.002, 5e-7, 0.0))
    found = [
        health_of(noisy, extrapolate(here, noisy.manifest, at)).ratio for at in (0.0, 2e4, 6e4)
    ]
    values = [number(interval.value) for interval in found]
    widths = [number(i.high) - number(i.low) for i in found]
    assert values == sorted(values, reverse=True)
    assert widths == sorted(widths)


def test_an_end_beyond_the_sweep_is_open_and_no_number(bundle: Bundle) -> None:
    found = health_of(bundle, estimate_with(bundle, 0.6, stds=(0.05, 0.0, 0.0, 0.0))).usable
    assert found.value == pytest.approx(float(crossing_km(0.6)), abs=0.01)
    assert (found.high, found.std) == (None, None)
    assert found.low == pytest.approx(float(crossing_km(0.6 + Z95 * 0.05)), rel=0.02)
    beyond = health_of(bundle, estimate_with(bundle, 0.5)).usable
    assert (beyond.value, beyond.low, beyond.high) == (None, None, None)


@pytest.mark.parametrize("cutoff_v", [1.0, 4.9])
def test_a_new_battery_that_is_empty_never_or_at_once_is_no_yardstick(
    bundle: Bundle, cutoff_v: float
) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, cutoff_voltage_v=cutoff_v)
    rng = np.random.default_rng(0)
    assert state_of_health(calibration.prior(manifest), VoltageModel(bundle), manifest, rng) is None


def test_without_a_health_section_there_is_no_state_of_health(tmp_path: Path) -> None:
    plain = aged_bundle(tmp_path, health=None)
    model, rng = VoltageModel(plain), np.random.default_rng(0)
    prior = calibration.prior(plain.manifest)
    assert state_of_health(prior, model, plain.manifest, rng) is None
    with pytest.raises(NoHealthError, match="declares no feature to sweep"):
        remaining_until_cutoff(prior, {"distance_km": 0.0}, model, plain.manifest, rng)


def test_a_latin_hypercube_holds_each_stratum_once() -> None:
    drawn = standard_normals(np.random.default_rng(4), 500, 3)
    np.testing.assert_allclose(np.sort(drawn, axis=0)[:, 0], np.sort(drawn, axis=0)[:, 2])
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.15
    assert drawn.std() == pytest.approx(1.0, abs=0.01)


def test_an_interval_of_samples_beyond_reach_has_no_end() -> None:
    samples = np.array([*range(90), *[np.inf] * 10], dtype=float)
    found = interval_of(50.0, samples, "km")
    assert (found.value, found.low, found.high, found.std) == (50.0, 2.0, None, None)
    nothing = interval_of(np.inf, np.full(100, np.inf), "km")
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)


def left(bundle: Bundle, conditions: dict[str, float], **options: Any) -> Remaining:
    estimate = options.pop("estimate", estimate_with(bundle, 1.1, stds=(0.02, 0.01, 0.0, 0.0)))
    manifest = options.pop("manifest", bundle.manifest)
    rng, model = np.random.default_rng(0), VoltageModel(bundle)
    return remaining_until_cutoff(estimate, conditions, model, manifest, rng, **options)


def test_what_is_left_is_the_crossing_less_where_it_stands(bundle: Bundle) -> None:
    found = left(bundle, {"distance_km": 60.0})
    assert found.swept.value == pytest.approx(float(crossing_km(1.1)) - 60.0, abs=2e-3)
    assert found.distance_km == found.swept
    assert found.conditions == {"distance_km": 60.0, "load_avg": 500.0}
    assert number(found.swept.low) < number(found.swept.value) < number(found.swept.high)


def test_what_is_left_holds_the_truth(bundle: Bundle) -> None:
    estimate = estimate_with(bundle, 1.1, stds=(0.02, 0.05, 0.0, 0.0))
    found = left(bundle, {"distance_km": 60.0}, estimate=estimate).swept
    truth = crossing_km(*drawn_truths(bundle, estimate)) - 60.0
    assert is_binomial(share_inside(found, truth), TRUTHS, 0.95)


def test_the_further_it_has_come_and_the_more_it_carries_the_less_is_left(bundle: Bundle) -> None:
    come = [
        number(left(bundle, {"distance_km": km}).swept.value) for km in (0.0, 60.0, 200.0, 300.0)
    ]
    assert come == sorted(come, reverse=True)
    assert come[-1] == 0.0
    loads = [
        number(left(bundle, {"distance_km": 0.0, "load_avg": kg}).swept.value)
        for kg in (0.0, 500.0, 2e3)
    ]
    assert loads == sorted(loads, reverse=True)
    assert len(set(loads)) == 3


def test_a_charge_becomes_a_distance_by_its_consumption_alone(bundle: Bundle) -> None:
    features = [msgspec.structs.replace(bundle.manifest.features[0], unit="Ah")]
    manifest = msgspec.structs.replace(
        bundle.manifest, features=[*features, bundle.manifest.features[1]]
    )
    plain = left(bundle, {"distance_km": 60.0}, manifest=manifest)
    assert (plain.swept.unit, plain.distance_km) == ("Ah", None)
    told = left(bundle, {"distance_km": 60.0}, manifest=manifest, consumption_per_km=0.5)
    assert told.distance_km is not None
    assert told.distance_km.unit == "km"
    for one, other in zip(
        (told.swept.value, told.swept.std, told.swept.low, told.swept.high),
        (told.distance_km.value, told.distance_km.std, told.distance_km.low, told.distance_km.high),
        strict=True,
    ):
        assert other == pytest.approx(2 * number(one))


def test_a_range_beyond_the_sweep_is_open(bundle: Bundle) -> None:
    estimate = estimate_with(bundle, 0.55, stds=(0.04, 0.0, 0.0, 0.0))
    found = left(bundle, {"distance_km": 60.0}, estimate=estimate)
    assert found.swept.high is None
    assert 0.2 < found.beyond_share < 0.9
    assert found.looked_at == 440.0


@pytest.mark.parametrize(
    ("conditions", "consumption", "where"),
    [
        ({}, None, "conditions.distance_km"),
        ({"distance_km": math.nan}, None, "conditions.distance_km"),
        ({"distance_km": -1.0}, None, "conditions.distance_km"),
        ({"distance_km": 500.0}, None, "conditions.distance_km"),
        ({"distance_km": 1.0, "load_avg": math.inf}, None, "conditions.load_avg"),
        ({"distance_km": 1.0, "wind": 3.0}, None, "conditions.wind"),
        ({"distance_km": 1.0}, 0.2, "consumption_per_km"),
        ({"distance_km": 1.0}, 0.0, "consumption_per_km"),
    ],
)
def test_a_question_that_cannot_be_answered_says_where(
    bundle: Bundle, conditions: dict[str, float], consumption: float | None, where: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        left(bundle, conditions, consumption_per_km=consumption)
    assert caught.value.where == where
