"""The simulated fleet as the demonstrations and benches use it: its vehicles, and its bundle.

Must never let the simulator's truth reach the edge or the cloud: it travels beside, for the report.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cloud.training.candidates import Overrides
from cloud.training.settings import TrainingSettings
from cloud.training.train import TrainingReport, train_bundle
from demo.vehicles import TripData, VehicleData
from firmware_sim.battery import usable_energy_wh
from firmware_sim.fleet_files import FileFormat, write_fleet
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

FEATURES = ("distance_km", "average_speed_m_s", "load_kg")
GAINS = ("gain:distance_km", "gain:output")
# A fleet smaller than this learns from the first trips of further vehicles of the same kind.
TRAINING_VEHICLES = 20
# A margin above the end of the new curve, 2.0 V: below it the model has seen nothing.
CUT_OFF_V = 2.05
# Chosen on fleets of other seeds than the demonstration's (docs/decisions.md).
RATE_PRIOR_STD = 3e-6
PROCESS_NOISE = 3e-11
RATE_PROCESS_NOISE = 1e-16
RATE_VOLATILITY = 0.008


def vehicles_of(fleet: FleetData) -> list[VehicleData]:
    """The fleet as the vehicles see it, with the truth beside it for the report alone."""
    return [
        VehicleData(
            vehicle_id,
            [_trip(fleet, v, t) for t in range(len(fleet.trip_ids))],
            dict(zip(fleet.trip_ids, _true_health(fleet, v), strict=True)),
        )
        for v, vehicle_id in enumerate(fleet.vehicle_ids)
    ]


def _true_health(fleet: FleetData, v: int) -> list[float]:
    usable_wh = usable_energy_wh(fleet.truth.degradation[v], CUT_OFF_V)
    health: list[float] = (usable_wh / usable_energy_wh(0.0, CUT_OFF_V)).tolist()
    return health


def _trip(fleet: FleetData, v: int, t: int) -> TripData:
    distance_km = fleet.samples.distance_km[v, t]
    return TripData(
        trip_id=fleet.trip_ids[t],
        time_s=fleet.trips.started_at_s[v, t] + fleet.samples.time_s[v, t],
        odometer=fleet.trips.odometer_start_km[v, t] + distance_km,
        signals={
            "distance_km": distance_km,
            "average_speed_m_s": np.full_like(distance_km, fleet.trips.average_speed_m_s[v, t]),
            "load_kg": np.full_like(distance_km, fleet.trips.load_kg[v, t]),
        },
        voltage_v=fleet.samples.voltage_v[v, t],
    )


def train(settings: TrainingSettings, out: Path, seed: int, vehicles: int) -> TrainingReport:
    """Train `out`/bundle on the first trips of that fleet, or of a larger one of its kind."""
    first_trips = FleetSettings(max(vehicles, TRAINING_VEHICLES), 1, seed)
    write_fleet(simulate_fleet(first_trips), out / "first-trips", FileFormat.PARQUET)
    table = out / "first-trips" / "discharge_curves.parquet"
    return train_bundle(settings, table, out / "bundle", datetime.now(UTC).date())


def training_settings(threshold_v: float) -> TrainingSettings:
    """What the fleet's bundle is trained with. Raises OptionError for an absurd threshold."""
    return TrainingSettings(
        features=FEATURES,
        target="voltage_v",
        name="published-fleet",
        error_threshold_v=threshold_v,
        cutoff_voltage_v=CUT_OFF_V,
        units={"distance_km": "km", "average_speed_m_s": "m/s", "load_kg": "kg"},
        health_sweep="distance_km",
        overrides=Overrides(
            rate_prior_std=dict.fromkeys(GAINS, RATE_PRIOR_STD),
            process_noise=dict.fromkeys(GAINS, PROCESS_NOISE),
            rate_process_noise=dict.fromkeys(GAINS, RATE_PROCESS_NOISE),
            rate_volatility=dict.fromkeys(GAINS, RATE_VOLATILITY),
        ),
    )
