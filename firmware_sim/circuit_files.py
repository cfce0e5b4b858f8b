"""The files of the equivalent-circuit fleet: what the BMS logs, and beside it, apart, the truth.

Must never put a column of the truth into a file that edge or cloud read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from firmware_sim.arrow_columns import chosen, moments
from firmware_sim.circuit_cell import NEW_CAPACITY_AH
from firmware_sim.circuit_fleet import CircuitFleet, CircuitTrip
from firmware_sim.circuit_reference import range_km, usable_charge_ah, usable_energy_wh
from firmware_sim.dataset_folder import (
    DISCHARGE_CURVES,
    EQUIVALENT_CIRCUIT,
    TRIPS,
    TRUTH,
    Dataset,
    FileFormat,
    write_dataset,
)

SOURCE: Final = (
    "equivalent-circuit cells (open-circuit voltage: Chen et al. 2020, doi "
    "10.1149/1945-7111/ab9050; all else own figures) in a compact car on NEDC, UDDS, HWFET, US06 "
    "and WLTC"
)
OWN_ROWS: Final = (
    *("time_s", "distance_km", "speed_m_s", "current_a", "discharged_ah"),
    *("soc_percent", "temperature_c", "voltage_v"),
)
COLUMNS: Final[dict[str, dict[str, str]]] = {
    TRIPS: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the recorded trip, counted per vehicle",
        "started_at": "start of the trip, RFC 3339, UTC",
        "odometer_start_km": "km, at the start of the trip",
        "odometer_end_km": "km, at the end of the trip",
        "planned_distance_km": "km, what the trip was meant to be",
        "distance_km": "km, driven: as planned, four hours long, or until the battery was empty",
        "duration_s": "s, driven",
        "average_speed_m_s": "m/s",
        "load_kg": "kg",
        "ambient_c": "°C, mean of the trip",
        "start_soc_percent": "%, state of charge that the BMS reads at the start",
    },
    DISCHARGE_CURVES: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the recorded trip, counted per vehicle",
        "time_s": "s, since the start of the trip; the end of the row's half minute",
        "unix_time_s": "s, Unix time",
        "odometer_km": "km",
        "distance_km": "km, since the start of the trip",
        "speed_m_s": "m/s, mean of the half minute",
        "current_a": "A, of one cell, mean of the half minute, positive when it discharges",
        "discharged_ah": "Ah, of one cell, since the start of the trip, by the current sensor",
        "start_soc_percent": "%, state of charge that the BMS read at the start",
        "soc_percent": "%, counted by the BMS from there over the nominal capacity",
        "temperature_c": "°C, of the cell",
        "voltage_v": "V, of one cell, mean of the half minute",
    },
    TRUTH: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the recorded trip, counted per vehicle",
        "capacity_ah": "Ah, of one cell, at the start of the trip",
        "state_of_health": "capacity over that of a new cell",
        "resistance_growth": "factor by which R0 has grown since new",
        "usable_charge_ah": "Ah, of one cell from full to 3.0 V at 1.5 A and 25 °C",
        "usable_energy_wh": "Wh, the same in energy",
        "range_km": "km, with that energy on the WLTC at 23 °C",
    },
}


def write_circuit_fleet(
    fleet: CircuitFleet,
    folder: Path,
    file_format: FileFormat = FileFormat.PARQUET,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Write the fleet to `folder`, all or nothing, and return the files; see `write_dataset`."""
    return write_dataset(circuit_dataset(fleet), folder, file_format, progress)


def circuit_dataset(fleet: CircuitFleet) -> Dataset:
    """The fleet as tables."""
    return Dataset(
        kind=EQUIVALENT_CIRCUIT,
        source=SOURCE,
        settings=asdict(fleet.settings),
        vehicles=fleet.settings.vehicles,
        columns=COLUMNS,
        columns_of={
            TRIPS: lambda rows: _table(fleet, rows, _trip_row),
            DISCHARGE_CURVES: lambda rows: _discharge_curves(fleet, rows),
            TRUTH: lambda rows: _table(fleet, rows, _truth_row),
        },
    )


def _table(
    fleet: CircuitFleet, rows: slice, row_of: Callable[[CircuitTrip], dict[str, float]]
) -> dict[str, Any]:
    """One row a trip; the trips table also has `started_at`, from what the row calls so."""
    trips = [trip for vehicle in fleet.vehicles[rows] for trip in vehicle.trips]
    made = [row_of(trip) for trip in trips]
    columns: dict[str, Any] = {name: np.array([row[name] for row in made]) for name in made[0]}
    if "started_at" in columns:
        columns["started_at"] = moments(columns["started_at"])
    return columns | _names(fleet, rows, [1] * len(trips))


def _trip_row(trip: CircuitTrip) -> dict[str, float]:
    log = trip.log
    distance_km, duration_s = float(log.distance_km[-1]), float(log.time_s[-1])
    return {
        "started_at": trip.started_at_s,
        "odometer_start_km": trip.odometer_start_km,
        "odometer_end_km": trip.odometer_start_km + distance_km,
        "planned_distance_km": trip.planned_distance_km,
        "distance_km": distance_km,
        "duration_s": duration_s,
        "average_speed_m_s": 1000.0 * distance_km / duration_s,
        "load_kg": trip.load_kg,
        "ambient_c": trip.ambient_c,
        "start_soc_percent": log.start_soc_percent,
    }


def _truth_row(trip: CircuitTrip) -> dict[str, float]:
    return {
        "capacity_ah": float(trip.cell.capacity_ah),
        "state_of_health": float(trip.cell.capacity_ah) / NEW_CAPACITY_AH,
        "resistance_growth": float(trip.cell.growth),
        "usable_charge_ah": usable_charge_ah(trip.cell),
        "usable_energy_wh": usable_energy_wh(trip.cell),
        "range_km": range_km(trip.cell),
    }


def _discharge_curves(fleet: CircuitFleet, rows: slice) -> dict[str, Any]:
    trips = [trip for vehicle in fleet.vehicles[rows] for trip in vehicle.trips]
    counts = [len(trip.log.time_s) for trip in trips]
    own = {name: np.concatenate([getattr(trip.log, name) for trip in trips]) for name in OWN_ROWS}

    def repeated(values: Sequence[float]) -> Any:
        return np.repeat(values, counts)

    return {
        **own,
        **_names(fleet, rows, counts),
        "unix_time_s": repeated([trip.started_at_s for trip in trips]) + own["time_s"],
        "odometer_km": repeated([trip.odometer_start_km for trip in trips]) + own["distance_km"],
        "start_soc_percent": repeated([trip.log.start_soc_percent for trip in trips]),
    }


def _names(fleet: CircuitFleet, rows: slice, counts: list[int]) -> dict[str, Any]:
    """The id columns of a block of vehicles whose trips have these numbers of rows, in order."""
    vehicles, trips = fleet.vehicles[rows], fleet.settings.trips
    vehicle = np.repeat(np.repeat(np.arange(len(vehicles)), trips), counts)
    trip = np.repeat(np.tile(np.arange(trips), len(vehicles)), counts)
    return {
        "vehicle_id": chosen(vehicle, [own.vehicle_id for own in vehicles]),
        "trip_id": chosen(trip, [own.trip_id for own in vehicles[0].trips]),
    }
