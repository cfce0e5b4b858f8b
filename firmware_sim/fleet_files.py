"""The files of the published fleet: what the BMS measures, and beside it, apart, the truth.

Must never put a column of the truth into a file that edge or cloud read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from firmware_sim.arrow_columns import chosen, moments
from firmware_sim.dataset_folder import (
    DISCHARGE_CURVES,
    PUBLISHED,
    TRIPS,
    TRUTH,
    Dataset,
    FileFormat,
    write_dataset,
)
from firmware_sim.published_fleet import FleetData

__all__ = ["COLUMNS", "FileFormat", "dataset_of", "write_fleet"]

SOURCE: Final = (
    "figures of norm_route_generator.py, https://github.com/aws-samples/aws-do-pm, MIT-0"
)

COLUMNS: Final[dict[str, dict[str, str]]] = {
    TRIPS: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "started_at": "start of the trip, RFC 3339, UTC",
        "odometer_start_km": "km, at the start of the trip",
        "odometer_end_km": "km, at the end of the trip",
        "planned_distance_km": "km, what the trip was meant to be",
        "distance_km": "km, driven: as planned or until the battery was empty",
        "duration_s": "s, driven",
        "average_speed_m_s": "m/s",
        "load_kg": "kg",
        "rolling_friction": "scaler, 1 is the reference",
        "aerodynamic_drag": "scaler, 1 is the reference",
    },
    DISCHARGE_CURVES: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "time_s": "s, since the start of the trip",
        "unix_time_s": "s, Unix time",
        "odometer_km": "km",
        "distance_km": "km, since the start of the trip",
        "average_speed_m_s": "m/s, of the trip",
        "load_kg": "kg, of the trip",
        "voltage_v": "V, of one cell, as the BMS measures it",
    },
    TRUTH: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "degradation": "share of the battery lost at the start of the trip",
        "capacity_wh": "Wh, of one cell, end of the discharge curve",
        "usable_energy_wh": "Wh, of one cell, down to the cut-off voltage of 2.0 V",
        "state_of_health": "usable energy over that of a new cell",
        "range_km": "km, down to the cut-off at 40 mph and 10,000 lb",
    },
}


def write_fleet(
    fleet: FleetData,
    folder: Path,
    file_format: FileFormat = FileFormat.PARQUET,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Write the fleet to `folder`, all or nothing, and return the files; see `write_dataset`."""
    return write_dataset(dataset_of(fleet), folder, file_format, progress)


def dataset_of(fleet: FleetData) -> Dataset:
    """The fleet as tables."""
    return Dataset(
        kind=PUBLISHED,
        source=SOURCE,
        settings=asdict(fleet.settings),
        vehicles=fleet.settings.vehicles,
        columns=COLUMNS,
        columns_of={
            TRIPS: lambda rows: _trips(fleet, rows),
            DISCHARGE_CURVES: lambda rows: _discharge_curves(fleet, rows),
            TRUTH: lambda rows: _truth(fleet, rows),
        },
    )


def _trips(fleet: FleetData, rows: slice) -> dict[str, Any]:
    trips = fleet.trips
    own = {
        name: getattr(trips, name)[rows].ravel() for name in COLUMNS[TRIPS] if hasattr(trips, name)
    }
    return {
        **own,
        **_names(fleet, rows, 1),
        "started_at": moments(trips.started_at_s[rows].ravel()),
        "odometer_end_km": own["odometer_start_km"] + own["distance_km"],
    }


def _discharge_curves(fleet: FleetData, rows: slice) -> dict[str, Any]:
    trips, samples = fleet.trips, fleet.samples
    per_trip = fleet.settings.samples_per_trip
    odometer_km = trips.odometer_start_km[rows, :, None] + samples.distance_km[rows]
    return {
        **_names(fleet, rows, per_trip),
        "time_s": samples.time_s[rows].ravel(),
        "unix_time_s": (trips.started_at_s[rows, :, None] + samples.time_s[rows]).ravel(),
        "odometer_km": odometer_km.ravel(),
        "distance_km": samples.distance_km[rows].ravel(),
        "average_speed_m_s": np.repeat(trips.average_speed_m_s[rows].ravel(), per_trip),
        "load_kg": np.repeat(trips.load_kg[rows].ravel(), per_trip),
        "voltage_v": samples.voltage_v[rows].ravel(),
    }


def _truth(fleet: FleetData, rows: slice) -> dict[str, Any]:
    truth = fleet.truth
    own = {
        name: getattr(truth, name)[rows].ravel() for name in COLUMNS[TRUTH] if hasattr(truth, name)
    }
    return own | _names(fleet, rows, 1)


def _names(fleet: FleetData, rows: slice, repeats: int) -> dict[str, Any]:
    """The id columns of a block of vehicles whose every trip has `repeats` rows."""
    vehicle_ids, trip_ids = fleet.vehicle_ids[rows], fleet.trip_ids
    vehicle = np.repeat(np.arange(len(vehicle_ids)), len(trip_ids) * repeats)
    trip = np.tile(np.repeat(np.arange(len(trip_ids)), repeats), len(vehicle_ids))
    return {"vehicle_id": chosen(vehicle, vehicle_ids), "trip_id": chosen(trip, trip_ids)}
