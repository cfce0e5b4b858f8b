"""The equivalent-circuit fleet as demonstrations and benches use it: its vehicles, and its bundle.

Another truth than the published fleet's: nothing in it shrinks a curve, so no parameter of the
twins matches it exactly. Must never let the simulator's truth reach the edge or the cloud: it
travels beside, for the report.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cloud.training.candidates import Overrides
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.train import TrainingReport, train_bundle
from common.manifest import MovingAverage
from demo.vehicles import TripData, VehicleData
from firmware_sim.circuit_cell import Aged
from firmware_sim.circuit_files import write_circuit_fleet
from firmware_sim.circuit_fleet import (
    CircuitFleet,
    CircuitFleetSettings,
    CircuitTrip,
    simulate_circuit_fleet,
)
from firmware_sim.circuit_reference import REFERENCE_CURRENT_A, usable_charge_ah
from firmware_sim.dataset_folder import FileFormat

CURRENTS = ("current_a", "current_60s_a", "current_300s_a")
FEATURES = ("start_soc_percent", "discharged_ah", *CURRENTS, "temperature_c")
# One trip each of so many new cars, so that all seasons and ways to drive are among them.
TRAINING_VEHICLES = 60
# A margin above the empty battery, 3.0 V: below it the model has seen little.
CUT_OFF_V = 3.2
REFERENCE_C = 25.0

RESISTANCE = "gain:" + "+".join(CURRENTS)
CAPACITY = "gain:discharged_ah"
PARAMETERS = (RESISTANCE, CAPACITY, "offset:output")


def fleet(vehicles: int, trips: int, seed: int) -> list[VehicleData]:
    """A fleet of this seed as its vehicles see it, the truth beside it; a trip every 2,000 km."""
    return vehicles_of(simulate_circuit_fleet(CircuitFleetSettings(vehicles, trips, seed)))


def vehicles_of(simulated: CircuitFleet) -> list[VehicleData]:
    """The fleet as the vehicles see it, with the truth beside it for the report alone."""
    return [
        VehicleData(
            vehicle.vehicle_id,
            [_trip(trip) for trip in vehicle.trips],
            {trip.trip_id: true_health(trip.cell) for trip in vehicle.trips},
        )
        for vehicle in simulated.vehicles
    ]


def true_health(cell: Aged) -> float:
    """What the bundle's own state of health should read: charge to the cut-off, new is 1."""
    return usable_charge_ah(cell, CUT_OFF_V) / usable_charge_ah(Aged(), CUT_OFF_V)


def train(threshold_v: float, out: Path, seed: int) -> TrainingReport:
    """Train `out`/bundle on first trips; with a fleet's own seed, its own and further cars'."""
    first_trips = simulate_circuit_fleet(CircuitFleetSettings(TRAINING_VEHICLES, 1, seed))
    write_circuit_fleet(first_trips, out / "first-trips", FileFormat.PARQUET)
    table = out / "first-trips" / "discharge_curves.parquet"
    return train_bundle(
        training_settings(threshold_v), table, out / "bundle", datetime.now(UTC).date()
    )


def training_settings(threshold_v: float) -> TrainingSettings:
    """What the fleet's bundle is trained with. Raises OptionError for an absurd threshold."""
    return TrainingSettings(
        features=FEATURES,
        target="voltage_v",
        name="equivalent-circuit-fleet",
        moving_averages={
            "current_60s_a": MovingAverage("current_a", 60.0),
            "current_300s_a": MovingAverage("current_a", 300.0),
        },
        hidden=(10, 10),
        noise_std_v=0.003,
        error_threshold_v=threshold_v,
        cutoff_voltage_v=CUT_OFF_V,
        ranges={
            "start_soc_percent": (0.0, 105.0),
            "discharged_ah": (-1.0, 8.0),
            **dict.fromkeys(CURRENTS, (-30.0, 30.0)),
            "temperature_c": (-40.0, 80.0),
            "voltage_v": (2.0, 4.5),
        },
        health_sweep="discharged_ah",
        reference={
            "start_soc_percent": 100.0,
            **dict.fromkeys(CURRENTS, REFERENCE_CURRENT_A),
            "temperature_c": REFERENCE_C,
        },
        choice=Choice(names=PARAMETERS),
        overrides=Overrides(
            prior_std=dict(zip(PARAMETERS, (0.3, 0.1, 0.02), strict=True)),
            process_noise=dict(zip(PARAMETERS, (4e-7, 2e-8, 2e-9), strict=True)),
            # The offset is the model's own error; it does not age.
            rate_prior_std={RESISTANCE: 3e-6, CAPACITY: 1.5e-6},
        ),
    )


def _trip(trip: CircuitTrip) -> TripData:
    log = trip.log
    return TripData(
        trip_id=trip.trip_id,
        time_s=trip.started_at_s + log.time_s,
        odometer=trip.odometer_start_km + log.distance_km,
        signals={
            "start_soc_percent": np.full_like(log.time_s, log.start_soc_percent),
            "discharged_ah": log.discharged_ah,
            "current_a": log.current_a,
            "temperature_c": log.temperature_c,
        },
        voltage_v=log.voltage_v,
    )
