"""Twins of equivalent circuits: a truth that no parameter of theirs was made for.

Trained by the manifest alone, calibrated by the cloud's own decision, and run by real agents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from cloud.training.sobol import SobolSettings
from cloud.training.train import train_bundle
from common.bundle import Bundle
from common.calibration import Estimate, Settings, align, extrapolate, prior
from common.calibrator import Case, MakeRevision, decide
from common.health import state_of_health
from common.model import VoltageModel
from common.thinning import thin
from common.trace import TraceArrays, from_wire, to_wire
from demo.circuit import (
    CAPACITY,
    CUT_OFF_V,
    PARAMETERS,
    RESISTANCE,
    training_settings,
    true_health,
    vehicles_of,
)
from demo.history import read_history
from demo.loop import run_loop, stage
from demo.vehicles import FloatArray, TripData, VehicleData, feature_rows
from firmware_sim.circuit_cell import Aged
from firmware_sim.circuit_files import write_circuit_fleet
from firmware_sim.circuit_fleet import CircuitFleetSettings, simulate_circuit_fleet

# Training takes a minute where two tests share a core.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("circuit-twin")]

THRESHOLD_V = 0.03
TRAINING_VEHICLES = 24
TRACE_POINTS = 50
KM = 40_000.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Smaller than the demonstration's, trained on the first trips of other cars."""
    folder = tmp_path_factory.mktemp("circuit")
    new_cars = simulate_circuit_fleet(CircuitFleetSettings(TRAINING_VEHICLES, 1, 5))
    write_circuit_fleet(new_cars, folder / "new-cars")
    settings = replace(training_settings(THRESHOLD_V), hidden=(7, 7), sobol=SobolSettings(16, 0))
    table = folder / "new-cars" / "discharge_curves.parquet"
    report = train_bundle(settings, table, folder / "bundle", date(2026, 1, 1))
    assert report.held_out.rmse_v < THRESHOLD_V
    assert report.warnings == ()
    return report.bundle


@pytest.fixture(scope="module")
def vehicles() -> list[VehicleData]:
    """Two cars, each seen new and then every 40,000 km up to 200,000."""
    return vehicles_of(simulate_circuit_fleet(CircuitFleetSettings(2, 6, 77, KM)))


@dataclass(frozen=True)
class Driven:
    """What one vehicle's twin did: errors with and without updates, and where it ended."""

    living_v: list[float]
    frozen_v: list[float]
    estimate: Estimate


def trace_of(trip: TripData, bundle: Bundle) -> TraceArrays:
    rows = feature_rows(trip, bundle.manifest)
    return TraceArrays(trip.time_s - trip.time_s[0], rows.features, trip.voltage_v)


def error_v(theta: FloatArray, trip: TraceArrays, model: VoltageModel) -> float:
    return float(np.abs(model.predict(trip.features, theta) - trip.voltage_v).mean())


def driven(vehicle: VehicleData, bundle: Bundle) -> Driven:
    """The loop without the wire: the agent's thinning, and the cloud's decision on each breach."""
    model, manifest = VoltageModel(bundle), bundle.manifest
    new = estimate = prior(manifest)
    living_v, frozen_v = [], []
    for trip in vehicle.trips:
        whole, odometer = trace_of(trip, bundle), float(trip.odometer[0])
        there = extrapolate(estimate, manifest, odometer)
        start = whole.features[0], float(whole.voltage_v[0])
        living_v.append(error_v(align(there, *start, model, manifest).theta, whole, model))
        frozen_v.append(error_v(new.theta, whole, model))
        if living_v[-1] > manifest.error_threshold_v:
            trace = from_wire(to_wire(thin(whole, TRACE_POINTS)), manifest)
            (made,) = decide(
                [Case(trace, odometer, estimate, estimate)], model, manifest, Settings()
            )
            if isinstance(made, MakeRevision):
                estimate = made.calibrated.estimate
    last = float(vehicle.trips[-1].odometer[0])
    return Driven(living_v, frozen_v, extrapolate(estimate, manifest, last))


def test_a_new_car_is_predicted_and_an_aged_one_is_not(
    bundle: Bundle, vehicles: list[VehicleData]
) -> None:
    for vehicle in vehicles:
        frozen_v = driven(vehicle, bundle).frozen_v
        assert frozen_v[0] < THRESHOLD_V
        assert frozen_v[-1] > 2.0 * THRESHOLD_V


def test_calibration_lowers_the_error_of_an_aged_car_to_under_half(
    bundle: Bundle, vehicles: list[VehicleData]
) -> None:
    for vehicle in vehicles:
        found = driven(vehicle, bundle)
        assert np.mean(found.living_v[2:]) < 0.5 * np.mean(found.frozen_v[2:])


def test_the_parameters_go_where_resistance_and_capacity_went(
    bundle: Bundle, vehicles: list[VehicleData]
) -> None:
    for vehicle in vehicles:
        estimate = driven(vehicle, bundle).estimate
        theta = dict(zip(PARAMETERS, estimate.theta.tolist(), strict=True))
        assert theta[RESISTANCE] > 1.1
        # A gain on the charge is what capacity lost; resistance also takes a little of the health.
        truth = vehicle.health_truth[vehicle.trips[-1].trip_id]
        assert theta[CAPACITY] == pytest.approx(1.0 / truth, rel=0.1)


def test_health_is_read_within_five_points_of_the_truth_although_no_parameter_is_the_truth(
    bundle: Bundle, vehicles: list[VehicleData]
) -> None:
    model = VoltageModel(bundle)
    for vehicle in vehicles:
        estimate = driven(vehicle, bundle).estimate
        health = state_of_health(estimate, model, bundle.manifest, np.random.default_rng(0))
        assert health is not None
        truth = vehicle.health_truth[vehicle.trips[-1].trip_id]
        assert truth < 0.87
        assert health.ratio.value == pytest.approx(truth, abs=0.05)


def test_true_health_is_one_for_a_new_cell_and_knows_resistance_from_capacity() -> None:
    assert CUT_OFF_V > 3.0
    assert true_health(Aged()) == 1.0
    assert true_health(Aged(4.0, 1.0)) == pytest.approx(0.8)
    assert true_health(Aged(5.0, 1.5)) < 1.0


def test_real_agents_and_the_real_service_follow_it_over_a_real_broker(
    tmp_path: Path, bundle: Bundle, vehicles: list[VehicleData]
) -> None:
    folder = bundle.path
    with stage(folder, tmp_path / "service") as running:
        run = run_loop(vehicles, folder, running, tmp_path, lambda: None)
    history = read_history(run.database)
    assert len(history.trips) == sum(len(vehicle.trips) for vehicle in vehicles)
    for vehicle in vehicles:
        own = [trip for trip in history.trips if trip.vehicle_id == vehicle.vehicle_id]
        expected = driven(vehicle, bundle)
        assert [trip.error_v for trip in own] == pytest.approx(expected.living_v, abs=2e-3)
    assert {recorded.verdict for recorded in history.revisions} == {"applied"}
