"""Figures of merit say what they should where the answer is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from bench.offline_loop import drive, ours
from bench.science import merit
from bench.science.fleet import crossing
from bench.science.forecast import crossing_forecast
from bench.science.goals import GOALS, at_least, at_most, interval_text, judged
from bench.science.insight import forecast_figures
from bench.science.methods.catalogue import FROZEN, GRIDS, UNTUNED, tuned_methods
from bench.science.plan import FULL, QUICK, Plan
from bench.science.spread import Spread, spread
from bench.science.timing import Contender, in_turns
from bench.science.truth import best_fit
from bench.science.tuning import Tried, best_of, merged
from common.bundle import Bundle
from common.calibration import Estimate, Settings, prior
from common.model import VoltageModel
from tests.support_bench import breaching_trip, life, trip_at
from tests.support_edge import aged_bundle

RNG_SEED = 5


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.mark.parametrize("degrees", [1, 2, 50])
def test_95_of_100_chi_square_values_lie_inside_their_interval(degrees: int) -> None:
    values = np.random.default_rng(RNG_SEED).chisquare(degrees, 20_000)
    found = merit.consistency(values, degrees)
    assert found["inside_95"] == pytest.approx(0.95, abs=0.005)
    assert found["per_degree"] == pytest.approx(1.0, abs=0.03)


def test_the_chi_square_interval_is_the_tables() -> None:
    low, high = merit.chi_square_interval(10)
    assert [float(low), float(high)] == pytest.approx([3.247, 20.483], abs=1e-3)


def test_values_three_times_too_large_fall_out_of_their_interval() -> None:
    values = 3.0 * np.random.default_rng(RNG_SEED).chisquare(50, 1000)
    assert merit.share_inside(values, 50) < 0.01


def test_each_value_is_judged_by_its_own_degrees_and_nan_does_not_count() -> None:
    assert merit.share_inside(np.array([10.0, 100.0, np.nan]), np.array([10.0, 100.0, 1.0])) == 1.0
    assert merit.share_inside(np.array([10.0, 100.0]), np.array([100.0, 10.0])) == 0.0
    assert np.isnan(merit.share_inside(np.array([np.nan]), 1))


def test_nees_is_the_distance_in_the_covariance_s_own_measure() -> None:
    found = merit.nees(np.array([3.0, 0.0]), np.diag([4.0, 1.0]), np.array([1.0, 2.0]))
    assert found == pytest.approx(2.0**2 / 4.0 + 2.0**2)


@pytest.mark.parametrize("level", merit.LEVELS)
def test_a_band_of_the_right_width_holds_its_level(level: float) -> None:
    truth = np.random.default_rng(RNG_SEED).normal(2.0, 0.3, 40_000)
    inside = merit.inside_band(truth, np.full(40_000, 2.0), np.full(40_000, 0.3), level)
    assert inside.mean() == pytest.approx(level, abs=0.006)


def test_coverage_is_told_by_quarter_of_life() -> None:
    share = np.repeat([[1.0, 0.8, 0.6, 0.4]], 25, axis=1)
    found = merit.coverage_figures({0.95: share})
    quarters = [found[f"inside_95_quarter_{number}"] for number in (1, 2, 3, 4)]
    assert quarters == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert found["inside_95"] == pytest.approx(0.7)


def test_the_error_leaves_the_first_ten_trips_out_and_the_updates_do_not() -> None:
    error_v = [1.0] * 10 + [0.02] * 30
    found = merit.loop_figures([life(error_v, updated=[True] * 4 + [False] * 36)], 0.05)
    assert found["error_v"] == pytest.approx(0.02)
    assert found["updates_per_1000"] == pytest.approx(100.0)


def test_a_breach_is_unseen_when_the_true_error_exceeds_and_no_update_follows() -> None:
    true_v = [0.06, 0.06, 0.06, 0.04]
    driven = life(true_v, updated=[True, True, False, False], true=true_v)
    assert merit.unseen_per_1000([driven], 0.05) == pytest.approx(250.0)


def test_errors_are_absolute_and_nan_is_left_out() -> None:
    found = merit.error_figures(np.array([-1.0, 3.0, np.nan]), "points")
    assert found["mean_points"] == pytest.approx(2.0)
    assert found["p95_points"] == pytest.approx(2.9)
    assert merit.error_figures(np.array([np.nan]), "points") == {}


def test_a_crossing_lies_between_its_trips() -> None:
    odometer, health = np.array([0.0, 100.0, 200.0]), np.array([1.0, 0.9, 0.7])
    assert crossing(odometer, health, 0.8) == pytest.approx(150.0)
    assert np.isnan(crossing(odometer, health, 0.5))


def test_a_forecast_of_a_steady_fade_finds_the_day_it_ends(aged: Bundle) -> None:
    """Health is 1 / gain there: 80 % at a gain of 1.25."""
    known = Estimate(np.array([1.1, 0.0]), np.array([1e-5, 0.0]), 1e-14 * np.eye(4), 10_000.0)
    forecast = crossing_forecast(VoltageModel(aged), 0.8)
    middle, low, high = forecast(known, aged.manifest)
    assert middle == pytest.approx(25_000.0, rel=0.01)
    assert low < middle < high


def test_a_forecast_is_made_when_its_share_of_life_is_driven(aged: Bundle) -> None:
    odometers = np.arange(0.0, 100.0, 10.0)
    asked = []

    def forecast(estimate: Estimate, _manifest: Any) -> tuple[float, float, float]:
        asked.append(estimate.odometer)
        return 110.0, 90.0, 105.0

    estimates = [prior(aged.manifest)] * len(odometers)
    found = forecast_figures(
        life([0.0] * 10, estimates=estimates), odometers, 100.0, forecast, aged.manifest
    )
    assert asked == [80.0, 50.0]
    assert found["half_life/error_percent"] == pytest.approx(10.0)
    assert found["half_life/inside_95"] == 1.0


def test_the_best_fit_is_what_made_the_voltage(aged: Bundle) -> None:
    model, trip = VoltageModel(aged), trip_at(aged, 0.0)
    truth = np.array([1.12, -0.04])
    voltage_v = model.predict(trip.whole.features, truth)
    start = np.array([1.0, 0.0])
    found = best_fit(start, trip.whole.features, voltage_v, model, aged.manifest)
    assert found == pytest.approx(truth, abs=1e-3)


def test_a_frozen_model_never_updates_and_ours_does(aged: Bundle) -> None:
    model = VoltageModel(aged)
    trips = [breaching_trip(aged, 100.0 * number, gain=1.15) for number in range(3)]
    frozen = drive([trips], model, UNTUNED[FROZEN](model, aged.manifest))[0]
    living = drive([trips], model, ours("ours", model, aged.manifest, Settings()))[0]
    assert not frozen.updated.any()
    assert living.updated.tolist() == [True, False, False]
    assert living.error_v[0] == pytest.approx(frozen.error_v[0])
    assert living.error_v[2] < aged.manifest.error_threshold_v < frozen.error_v[2]
    assert np.isfinite(living.nis[0])
    assert np.isnan(living.nis[1:]).all()


def test_vehicles_side_by_side_drive_as_each_would_alone(aged: Bundle) -> None:
    model = VoltageModel(aged)
    method = ours("ours", model, aged.manifest, Settings())
    lives = [
        [breaching_trip(aged, 100.0 * n, gain=gain, points=points) for n in range(trips)]
        for gain, points, trips in ((1.1, 50, 4), (0.9, 40, 2), (1.2, 50, 3))
    ]
    together = drive(lives, model, method)
    for trips, found in zip(lives, together, strict=True):
        alone = drive([trips], model, method)[0]
        assert found.error_v == pytest.approx(alone.error_v, rel=1e-6)
        assert found.updated.tolist() == alone.updated.tolist()


def test_a_prior_that_knows_the_vehicle_spares_its_first_update(aged: Bundle) -> None:
    model = VoltageModel(aged)
    trips = [breaching_trip(aged, 0.0, gain=1.15)]
    method = ours("ours", model, aged.manifest, Settings())
    known = Estimate(np.array([1.15, 0.0]), np.zeros(2), 1e-6 * np.eye(4), 0.0)
    assert drive([trips], model, method)[0].updated.all()
    assert not drive([trips], model, method, lambda _odometer: known)[0].updated.any()


def test_a_spread_counts_the_seeds_that_had_the_figure() -> None:
    found = spread([{"a": 1.0}, {"a": 3.0, "b": 5.0}, {"a": float("nan")}])
    assert (found["a"].mean, found["a"].count) == (2.0, 2)
    assert found["a"].std == pytest.approx(2.0**0.5)
    assert found["b"] == Spread(5.0, 0.0, 1)


def test_tuning_takes_the_lowest_mean_error_over_the_fleets() -> None:
    one = {"peer": {"x": Tried(0.1, 10.0), "y": Tried(0.2, 5.0)}}
    two = {"peer": {"x": Tried(0.5, 10.0), "y": Tried(0.2, 7.0)}}
    both = merged([one, two])
    assert both["peer"]["y"].error_v == pytest.approx(0.2)
    assert both["peer"]["y"].updates_per_1000 == 6.0
    assert best_of(both) == {"peer": "y"}


def test_every_tuned_peer_runs_with_the_value_that_was_chosen() -> None:
    chosen = {name: list(grid)[-1] for name, grid in GRIDS.items()}
    found = tuned_methods(chosen)
    assert all(found[name] is GRIDS[name][label] for name, label in chosen.items())


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_no_vehicle_is_both_tuned_on_and_reported(plan: Plan) -> None:
    assert not set(plan.tuning_seeds) & set(plan.reporting_seeds)


def test_a_full_run_has_ten_seeds() -> None:
    assert len(FULL.reporting_seeds) >= 10


def test_a_goal_is_met_when_every_one_of_its_figures_is() -> None:
    figures = {g.figure: Spread((g.least[0] + g.least[1]) / 2, 0.0, 3) for g in GOALS}
    goal = next(goal for goal in GOALS if goal.also)
    scaled = {name: Spread(0.95, 0.0, 3) for name in (goal.figure, *goal.also)}
    met = {found.goal.name: found for found in judged({**figures, **scaled})}[goal.name]
    assert met.met_least
    assert met.met_aim
    late = {**figures, **scaled, goal.also[-1]: Spread(0.5, 0.0, 3)}
    assert not {found.goal.name: found for found in judged(late)}[goal.name].met_least


def test_a_goal_that_was_not_measured_is_not_met() -> None:
    for found in judged({}):
        assert found.measured is None
        assert not found.met_least
        assert not found.met_aim


def test_what_is_aimed_at_lies_inside_what_is_asked_for() -> None:
    for goal in GOALS:
        assert goal.least[0] <= goal.aim[0] <= goal.aim[1] <= goal.least[1], goal.name


@pytest.mark.parametrize(
    ("interval", "text"),
    [(at_most(0.03), "≤ 0.03"), (at_least(40_000), "≥ 40,000"), ((92.0, 98.0), "92–98")],
)
def test_an_interval_reads_as_a_person_writes_it(interval: Any, text: str) -> None:
    assert interval_text(interval) == text


def test_contenders_run_in_turns_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    contenders = [Contender(name, 2, partial(ran.append, name)) for name in "ab"]
    taken = in_turns(contenders, repeats=3)
    assert ran == ["a", "b"] * 4
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}
