"""The simulated fleet of one seed: every method at every threshold, and what our estimates claim.

Must never choose anything: the tuned values come from other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Driven, drive, with_fleet_growth
from bench.science.fleet import END_OF_LIFE, THRESHOLD_V, Fleet, make_fleet
from bench.science.forecast import crossing_forecast
from bench.science.insight import Claims, claim_figures, claims_of, forecast_figures
from bench.science.merit import loop_figures
from bench.science.methods.catalogue import FLEET_PRIOR, OURS, tuned_methods
from bench.science.methods.common_ground import with_threshold
from bench.science.one_thread import one_thread
from bench.science.plan import Plan
from bench.science.posterior import pick_cases, posterior_figures
from bench.science.spread import Figures, spread, under
from bench.science.truth import true_thetas
from bench.science.tuning import Trials, try_grids
from common.calibration import Estimate
from common.errors import TooFewVehiclesError
from common.fleet_learning import History, learn
from common.fleet_prior import FleetPrior, start
from common.manifest import Manifest


@dataclass(frozen=True)
class SeedResult:
    """Figures of one seed, those of each posterior case, and curves over the trips for drawing."""

    figures: Figures
    posterior: list[Figures]
    curves: dict[str, list[float]]


def tune_on(seed: int, plan: Plan) -> Trials:
    """Every grid on the fleet of a tuning seed."""
    with one_thread():
        fleet = make_fleet(seed, plan.vehicles, 0, plan.trips, plan.teachers)
        return try_grids(fleet.vehicles, fleet.model, fleet.manifest, plan.values_each)


def report_on(seed: int, plan: Plan, chosen: Mapping[str, str]) -> SeedResult:
    """Everything about the fleet of a reporting seed."""
    with one_thread():
        fleet = make_fleet(seed, plan.vehicles, plan.others, plan.trips, plan.teachers)
        driven = {
            threshold_v: _drive_all(fleet, threshold_v, chosen) for threshold_v in plan.thresholds_v
        }
        figures: Figures = {}
        for threshold_v, methods in driven.items():
            for name, lives in methods.items():
                found = loop_figures(lives, threshold_v)
                figures.update(under(f"fleet/{threshold_v:g} V/{name}", found))
        at = driven[THRESHOLD_V]
        saved = 1.0 - _updates(at[FLEET_PRIOR]) / _updates(at[OURS])
        figures["fleet_prior/updates_saved_percent"] = 100.0 * saved
        thetas = [true_thetas(trips, fleet.model, fleet.manifest) for trips in fleet.vehicles]
        claims = {name: _claims(fleet, at[name], thetas) for name in (OURS, FLEET_PRIOR)}
        for name, claimed in claims.items():
            found = claim_figures(claimed, at[name], fleet.truths)
            figures.update(under(f"claims/{name}", found))
        for name in (OURS, FLEET_PRIOR):
            figures.update(under(f"forecast/{name}", _forecasts(fleet, at[name])))
        return SeedResult(
            figures, _posterior(fleet, at[OURS], plan, seed), _curves(fleet, at, claims[OURS])
        )


def _drive_all(
    fleet: Fleet, threshold_v: float, chosen: Mapping[str, str]
) -> dict[str, list[Driven]]:
    manifest = with_threshold(fleet.manifest, threshold_v)
    made = {name: make(fleet.model, manifest) for name, make in tuned_methods(chosen).items()}
    found = {name: drive(fleet.vehicles, fleet.model, method) for name, method in made.items()}
    others = drive(fleet.others, fleet.model, made[OURS])
    try:
        learned = _learned(others, manifest)
    except TooFewVehiclesError:  # in a run that is too small for a prior
        return found | {FLEET_PRIOR: found[OURS]}
    method = with_fleet_growth(made[OURS], learned)
    found[FLEET_PRIOR] = drive(
        fleet.vehicles, fleet.model, method, lambda age: start(learned, manifest, age)
    )
    return found


def _learned(others: Sequence[Driven], manifest: Manifest) -> FleetPrior:
    """The fleet's prior as the cloud learns it: from the revisions of other vehicles, seen new."""
    histories = [History(_revisions(life), is_from_new=True) for life in others]
    return learn(histories, manifest, bundle=manifest.model_sha256, version=1, made_at=0.0)


def _revisions(life: Driven) -> list[Estimate]:
    """Every estimate that an update brought and that was in force, each once."""
    distinct = {estimate.odometer: estimate for estimate in life.estimates}
    return [distinct[odometer] for odometer in sorted(distinct) if odometer > 0]


def _updates(lives: Sequence[Driven]) -> float:
    return float(sum(life.updated.sum() for life in lives))


def _claims(
    fleet: Fleet, lives: Sequence[Driven], thetas: Sequence[npt.NDArray[np.float64]]
) -> list[Claims]:
    return [
        claims_of(life, trips, theta, fleet.model, fleet.manifest)
        for life, trips, theta in zip(lives, fleet.vehicles, thetas, strict=True)
    ]


def _forecasts(fleet: Fleet, lives: Sequence[Driven]) -> Figures:
    forecast = crossing_forecast(fleet.model, END_OF_LIFE)
    found = [
        forecast_figures(
            life,
            np.array([trip.odometer for trip in trips]),
            truth.end_of_life,
            forecast,
            fleet.manifest,
        )
        for life, trips, truth in zip(lives, fleet.vehicles, fleet.truths, strict=True)
    ]
    return {name: value.mean for name, value in spread(found).items()}


def _posterior(fleet: Fleet, lives: Sequence[Driven], plan: Plan, seed: int) -> list[Figures]:
    """Cases of the first vehicle: its first update, its last, and between."""
    cases = pick_cases(lives[0], fleet.vehicles[0], fleet.manifest, plan.posterior_cases)
    return posterior_figures(cases, fleet.model, fleet.manifest, plan.chain_steps, seed)


def _curves(
    fleet: Fleet, at: Mapping[str, Sequence[Driven]], claims: Sequence[Claims]
) -> dict[str, list[float]]:
    """Means over the vehicles, trip by trip."""
    errors = {
        f"error_v/{name}": np.mean([life.error_v for life in lives], axis=0).tolist()
        for name, lives in at.items()
    }
    pairs = list(zip(claims, fleet.truths, strict=True))
    health = np.mean([100 * np.abs(c.health - t.health) for c, t in pairs], axis=0)
    range_km = np.mean([100 * np.abs(c.range_km / t.range_km - 1) for c, t in pairs], axis=0)
    inside = np.mean([c.measured_inside[0.95] for c in claims], axis=0)
    true = np.mean([c.true_inside[0.95] for c in claims], axis=0)
    return {
        **errors,
        "health_points": health.tolist(),
        "range_percent": range_km.tolist(),
        "inside_95": inside.tolist(),
        "true_inside_95": true.tolist(),
    }
