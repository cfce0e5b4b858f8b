"""A planned trip: the band holds what will be measured, and arrival is said with a probability."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from common.bundle import Bundle
from common.errors import QuestionError
from common.estimate import Estimate
from common.features import FeatureBuilder
from common.manifest import Feature, MovingAverage
from common.model import VoltageModel
from common.planned_trip import PlannedRow, PlannedTrip, plan_trip, planned_features
from tests.support_derived import crossing_km, estimate_with, is_binomial, number
from tests.support_edge import aged_bundle, linear_bundle, manifest_of

STDS = (0.02, 0.01, 0.0, 0.0)
TRUTHS = 20_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def rows_to(end_km: float, count: int = 61, load_kg: float = 500.0) -> list[PlannedRow]:
    """A trip of 60 km/h."""
    return [
        PlannedRow({"distance_km": float(km), "load_kg": load_kg}, 60.0 * float(km))
        for km in np.linspace(0.0, end_km, count)
    ]


def planned(bundle: Bundle, estimate: Estimate, rows: list[PlannedRow]) -> PlannedTrip:
    return plan_trip(
        estimate, rows, VoltageModel(bundle), bundle.manifest, np.random.default_rng(0)
    )


def test_where_the_model_is_linear_the_band_is_the_closed_form(tmp_path: Path) -> None:
    linear = linear_bundle(tmp_path)
    rows = rows_to(300.0)
    found = planned(linear, estimate_with(linear, 1.0, stds=STDS), rows)
    at_nominal = VoltageModel(linear).predict(planned_features(rows, linear.manifest), [1.0, 0.0])
    np.testing.assert_allclose(found.voltage_v, at_nominal)
    own = 0.01**2 + 0.005**2
    std = np.sqrt((0.02 * at_nominal) ** 2 + 0.01**2 + own)
    np.testing.assert_allclose(found.std_v, std, rtol=0.05)
    np.testing.assert_allclose(found.high_v, found.voltage_v + 1.96 * std, atol=0.01)
    np.testing.assert_allclose(found.low_v, found.voltage_v - 1.96 * std, atol=0.01)


def test_the_band_holds_what_will_be_measured_in_95_of_100_cases(bundle: Bundle) -> None:
    estimate = estimate_with(bundle, 1.1, stds=(0.05, 0.01, 0.0, 0.0))
    found = planned(bundle, estimate, rows_to(300.0))
    rng = np.random.default_rng(5)
    gain, offset = rng.normal(1.1, 0.05, TRUTHS), rng.normal(0.0, 0.01, TRUTHS)
    own = rng.normal(0.0, 0.005, TRUTHS) + rng.normal(0.0, 0.01, TRUTHS)
    for row, km in ((0, 0.0), (20, 100.0), (40, 200.0), (60, 300.0)):
        measured = 3.5 - 0.6 * np.tanh((gain * km - 200) / 100) + offset + own
        inside = float(((measured >= found.low_v[row]) & (measured <= found.high_v[row])).mean())
        assert is_binomial(inside, TRUTHS, 0.95)


def test_the_places_are_where_voltage_and_band_meet_the_cut_off(bundle: Bundle) -> None:
    found = planned(bundle, estimate_with(bundle, 1.1, stds=STDS), rows_to(300.0, 301))
    assert not found.arrives
    assert found.mean_crosses is not None
    assert found.band_crosses is not None
    at_km = number(found.mean_crosses.swept)
    assert at_km == pytest.approx(float(crossing_km(1.1)), abs=0.01)
    assert found.mean_crosses.time_s == pytest.approx(60.0 * at_km)
    assert found.mean_crosses.row == pytest.approx(at_km)
    assert number(found.band_crosses.swept) < at_km


@pytest.mark.parametrize("spare_km", [-12.0, 0.0, 12.0, 60.0])
def test_the_probability_of_arrival_is_that_of_the_closed_form(
    bundle: Bundle, spare_km: float
) -> None:
    end_km = float(crossing_km(1.1)) - spare_km
    estimate = estimate_with(bundle, 1.1, stds=(0.03, 0.0, 0.0, 0.0))
    found = planned(bundle, estimate, rows_to(end_km))
    rng = np.random.default_rng(6)
    truth = crossing_km(rng.normal(1.1, 0.03, TRUTHS), rng.normal(0.0, 0.005, TRUTHS))
    assert is_binomial(found.arrival_probability, TRUTHS, float((truth > end_km).mean()), 0.02)
    if spare_km:
        assert found.arrives == (spare_km > 0)


def test_single_samples_noise_is_in_the_band_and_not_in_the_arrival(bundle: Bundle) -> None:
    end_km = float(crossing_km(1.1, 0.0, 3.1 + 0.012))  # 12 mV to spare, noise 10 mV
    found = planned(bundle, estimate_with(bundle, 1.1), rows_to(end_km))
    assert found.arrival_probability == pytest.approx(NormalDist().cdf(0.012 / 0.005), abs=0.005)
    assert found.std_v[-1] == pytest.approx(math.hypot(0.005, 0.01), rel=0.05)
    assert found.arrives
    assert found.band_crosses is not None


def test_the_further_the_trip_the_less_likely_it_arrives(bundle: Bundle) -> None:
    estimate = estimate_with(bundle, 1.1, stds=STDS)
    found = [
        planned(bundle, estimate, rows_to(end)).arrival_probability
        for end in (200.0, 250.0, 260.0, 270.0, 300.0)
    ]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.0)


def test_moving_averages_are_those_of_the_vehicle(bundle: Bundle) -> None:
    rows = [PlannedRow({"distance_km": float(i), "load_kg": 100.0 * i}, 30.0 * i) for i in range(8)]
    builder = FeatureBuilder(bundle.manifest)
    expected = [builder.row(number(row.time_s), row.signals) for row in rows]
    assert planned_features(rows, bundle.manifest).tolist() == expected
    assert len({features[1] for features in expected}) == 8


def test_where_a_signal_is_feature_and_average_its_own_range_counts() -> None:
    features = [
        Feature("load_kg", "kg", 0.0, 1e4),
        Feature("load_avg", "kg", 0.0, 2e3, MovingAverage("load_kg", 60.0)),
    ]
    manifest = manifest_of(b"", features=features)
    assert planned_features([PlannedRow({"load_kg": 9e3}, 0.0)], manifest).tolist() == [[9e3, 9e3]]


def test_without_moving_averages_no_times_are_needed() -> None:
    manifest = manifest_of(b"", features=[Feature("distance_km", "km", 0.0, 500.0)])
    rows = [PlannedRow({"distance_km": 3.0}), PlannedRow({"distance_km": 1.0})]
    assert planned_features(rows, manifest).tolist() == [[3.0], [1.0]]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"signals": {"distance_km": math.nan, "load_kg": 1.0}}, "rows.1.distance_km"),
        ({"signals": {"distance_km": 1e9, "load_kg": 1.0}}, "rows.1.distance_km"),
        ({"signals": {"distance_km": 1.0, "load_kg": -1.0}}, "rows.1.load_kg"),
        ({"signals": {"distance_km": 1.0}}, "rows.1.load_kg"),
        ({"signals": {"distance_km": 1.0, "load_kg": 1.0, "wind": 1.0}}, "rows.1.wind"),
        ({"time_s": None}, "rows.1.time_s"),
        ({"time_s": 0.0}, "rows.1.time_s"),
        ({"time_s": math.nan}, "rows.1.time_s"),
    ],
)
def test_a_plan_that_makes_no_sense_says_where(
    bundle: Bundle, changes: dict[str, Any], where: str
) -> None:
    good: dict[str, Any] = {"signals": {"distance_km": 1.0, "load_kg": 1.0}, "time_s": 60.0}
    rows = [PlannedRow({"distance_km": 0.0, "load_kg": 1.0}, 0.0), PlannedRow(**good | changes)]
    with pytest.raises(QuestionError) as caught:
        planned(bundle, estimate_with(bundle), rows)
    assert caught.value.where == where


@pytest.mark.parametrize("count", [0, 4097])
def test_a_plan_has_at_least_one_row_and_not_too_many(bundle: Bundle, count: int) -> None:
    rows = [PlannedRow({"distance_km": 0.0, "load_kg": 1.0}, float(i)) for i in range(count)]
    with pytest.raises(QuestionError, match="1 to 4096 rows"):
        planned(bundle, estimate_with(bundle), rows)
