"""A simulated fleet of a seed: trips as the agents see them, the truth beside them, and a bundle.

The bundle is trained on the first trips of further vehicles of the same seed: none of those that
are driven teaches the model. Must never hand the truth to a method.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Trip, trips_of
from cloud.training.train import train_bundle
from common.manifest import Manifest
from common.model import VoltageModel
from demo.measured import write_table
from demo.simulated import CUT_OFF_V, training_settings, vehicles_of
from firmware_sim.battery import cell_energy_wh_per_km, usable_energy_wh
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

FloatArray = npt.NDArray[np.float64]

TRAINING_SEED = 900  # of a fleet that is neither tuned on nor reported
TRAINED_ON = date(2026, 1, 1)
THRESHOLD_V = 0.05
END_OF_LIFE = 0.8


@dataclass(frozen=True)
class Truth:
    """What no vehicle can measure, per trip at its start [T].

    The range is from full to the cut-off at the manifest's reference speed and load, as its health
    section has it. `end_of_life` is the odometer of 80 % health, NaN where the health stays above.
    """

    health: FloatArray
    range_km: FloatArray
    end_of_life: float


@dataclass(frozen=True)
class Fleet:
    """Vehicles with their truth, and others of their kind whose history a fleet prior may use."""

    model: VoltageModel
    manifest: Manifest
    vehicles: list[list[Trip]]
    truths: list[Truth]
    others: list[list[Trip]]


def make_fleet(seed: int, vehicles: int, others: int, trips: int, teachers: int) -> Fleet:
    """The fleet of `seed`; the same arguments give the same bits."""
    driven = simulate_fleet(FleetSettings(vehicles + others, trips, seed))
    model, manifest = _bundle(teachers)
    seen = vehicles_of(driven)
    lives = [
        trips_of(vehicle, manifest, list(driven.truth.voltage_true_v[v]))
        for v, vehicle in enumerate(seen)
    ]
    truths = [_truth(driven, v, manifest) for v in range(vehicles)]
    return Fleet(model, manifest, lives[:vehicles], truths, lives[vehicles:])


@lru_cache(maxsize=1)
def _bundle(teachers: int) -> tuple[VoltageModel, Manifest]:
    """One bundle for all fleets of this kind, from the first trips of vehicles of none of them."""
    first_trips = vehicles_of(simulate_fleet(FleetSettings(teachers, 1, TRAINING_SEED)))
    settings = training_settings(THRESHOLD_V)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "first-trips.csv"
        write_table(first_trips, table, settings.target)
        bundle = train_bundle(settings, table, Path(folder) / "bundle", TRAINED_ON).bundle
    return VoltageModel(bundle), bundle.manifest


def _truth(fleet: FleetData, v: int, manifest: Manifest) -> Truth:
    usable_wh = usable_energy_wh(fleet.truth.degradation[v], CUT_OFF_V)
    health = usable_wh / float(usable_energy_wh(0.0, CUT_OFF_V))
    reference = manifest.health.reference if manifest.health else {}
    per_km = cell_energy_wh_per_km(reference["average_speed_m_s"], reference["load_kg"])
    odometer = fleet.trips.odometer_start_km[v]
    return Truth(health, usable_wh / per_km, crossing(odometer, health, END_OF_LIFE))


def crossing(odometer: FloatArray, health: FloatArray, level: float) -> float:
    """Where a falling health first reaches the level, linear in between; NaN where it does not."""
    below = np.flatnonzero(health <= level)
    if not len(below) or below[0] == 0:
        return float("nan")
    i = int(below[0])
    share = (health[i - 1] - level) / (health[i - 1] - health[i])
    return float(odometer[i - 1] + share * (odometer[i] - odometer[i - 1]))
