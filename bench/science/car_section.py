"""The measured car: living against frozen through its winter, networks of several seeds.

Frozen is the model as it was trained, on every trip the same. Beside it stands what alignment alone
would do for it: the same trips without a single update.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.offline_loop import Trip, drive, ours, trips_of
from bench.science.cells_section import DATA
from bench.science.fleet import TRAINED_ON
from bench.science.methods.catalogue import FROZEN, UNTUNED
from bench.science.one_thread import one_thread
from bench.science.plan import Plan
from bench.science.spread import Figures
from cloud.training.train import train_bundle
from common.calibration import Settings
from common.manifest import Manifest
from common.model import VoltageModel
from demo.measured import read_car, write_table
from demo.real import CAR, CAR_SETTINGS, CAR_TRAINING_TRIPS, SERIES_CELLS, WINTER_BELOW_C
from demo.vehicles import VehicleData


def winter(seed: int, plan: Plan) -> Figures:
    """Winter errors a cell in millivolts, and by how much living is lower than frozen."""
    with one_thread():
        car, ambient_c = read_car(DATA / CAR)
        settings = replace(CAR_SETTINGS, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "trips.csv"
            first = replace(car, trips=car.trips[:CAR_TRAINING_TRIPS])
            write_table([first], table, settings.target)
            bundle = train_bundle(settings, table, Path(folder) / "bundle", TRAINED_ON).bundle
        manifest, model = bundle.manifest, VoltageModel(bundle)
        replayed = car.trips[CAR_TRAINING_TRIPS:]
        if plan.car_trips is not None:  # those that end in winter
            replayed = replayed[-plan.car_trips :]
        trips = trips_of(VehicleData(car.vehicle_id, replayed), manifest)
        cold = [ambient_c[trip.trip_id] < WINTER_BELOW_C for trip in trips]
        living = drive([trips], model, ours("living", model, manifest, Settings()))[0]
        aligned = drive([trips], model, UNTUNED[FROZEN](model, manifest))[0]
        frozen_v = np.array([_frozen_error_v(trip, model, manifest) for trip in trips])
        scale = 1000.0 / SERIES_CELLS
        living_mv = scale * float(np.mean(living.error_v[cold]))
        frozen_mv = scale * float(np.mean(frozen_v[cold]))
        return {
            "car/living_mv_per_cell": living_mv,
            "car/frozen_mv_per_cell": frozen_mv,
            "car/aligned_mv_per_cell": scale * float(np.mean(aligned.error_v[cold])),
            "car/times_lower": frozen_mv / living_mv,
            "car/updates_per_1000": 1000.0 * float(living.updated.mean()),
        }


def _frozen_error_v(trip: Trip, model: VoltageModel, manifest: Manifest) -> float:
    """At the nominal parameters."""
    nominal = np.array([p.nominal for p in manifest.parameters])
    predicted = model.predict(trip.whole.features, nominal)
    return float(np.abs(predicted - trip.whole.voltage_v).mean())
