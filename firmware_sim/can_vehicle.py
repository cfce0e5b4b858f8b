"""A simulated vehicle as its CAN bus knows it: trips of physical values by the DBC's signal names.

Pure. Between two samples of the fleet values run straight. Must never hold the truth: what the
battery management system cannot measure is on no bus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim import battery
from firmware_sim.battery import FloatArray
from firmware_sim.circuit_fleet import CircuitFleetSettings, CircuitTrip, simulate_circuit_fleet
from firmware_sim.errors import SettingsError
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

CELLS_IN_SERIES: Final = 96
CELL_SPREAD_V: Final = 0.004
TEMPERATURE_SPREAD_C: Final = 1.5
PUBLISHED_TEMPERATURE_C: Final = 25.0
KM_H: Final = 3.6
LARGEST_VEHICLE: Final = 999


@dataclass(frozen=True, eq=False)
class BusTrip:
    """One trip: `columns` of physical values [rows] at `time_s` seconds since its start."""

    started_at_s: float
    time_s: FloatArray
    columns: dict[str, FloatArray]

    @property
    def duration_s(self) -> float:
        """How long the trip takes."""
        return float(self.time_s[-1])

    def at(self, time_s: float) -> dict[str, float]:
        """All signals at one moment of the trip."""
        found = {n: float(np.interp(time_s, self.time_s, c)) for n, c in self.columns.items()}
        return {**found, "Ignition": 1.0, "UnixTime": self.started_at_s + time_s}

    def parked(self, after_s: float) -> dict[str, float]:
        """All signals so long after the trip's end."""
        rest = {"Ignition": 0.0, "Speed": 0.0, "PackCurrent": 0.0}
        at_end = self.at(self.duration_s)
        return {**at_end, **rest, "UnixTime": at_end["UnixTime"] + after_s}


def vehicle_index(name: str) -> int:
    """Row of the vehicle V001, V002 and so on. Raises SettingsError."""
    digits = name.removeprefix("V")
    if not (name.startswith("V") and digits.isdecimal() and 1 <= int(digits) <= LARGEST_VEHICLE):
        raise SettingsError("vehicle", name, f"use V001 to V{LARGEST_VEHICLE}")
    return int(digits) - 1


def published_trips(index: int, first: int, trips: int, seed: int) -> list[BusTrip]:
    """Trips of a vehicle of the published fleet; `first` counts from 1."""
    fleet = simulate_fleet(FleetSettings(index + 1, first - 1 + trips, seed))
    return [_published(fleet, index, k) for k in range(first - 1, first - 1 + trips)]


def circuit_trips(index: int, first: int, trips: int, seed: int) -> list[BusTrip]:
    """Trips of a car with equivalent-circuit cells; `first` counts from 1."""
    fleet = simulate_circuit_fleet(CircuitFleetSettings(index + 1, first - 1 + trips, seed))
    return [_circuit(trip) for trip in fleet.vehicles[index].trips[first - 1 :]]


def _published(fleet: FleetData, index: int, k: int) -> BusTrip:
    trips, samples = fleet.trips, fleet.samples
    speed_m_s, load_kg = trips.average_speed_m_s[index, k], trips.load_kg[index, k]
    per_km = battery.cell_energy_wh_per_km(
        speed_m_s, load_kg, trips.rolling_friction[index, k], trips.aerodynamic_drag[index, k]
    )
    distance_km, voltage_v = samples.distance_km[index, k], samples.voltage_v[index, k]
    capacity_wh = battery.cell_capacity_wh(0.0)  # what the BMS believes: it was new once
    rows = np.ones_like(voltage_v)
    columns = {
        "Odometer": trips.odometer_start_km[index, k] + distance_km,
        "Speed": KM_H * speed_m_s * rows,
        "Load": load_kg * rows,
        "PackCurrent": per_km * KM_H * speed_m_s / voltage_v,
        "StateOfCharge": 100.0 * (1.0 - distance_km * per_km / capacity_wh),
        **_pack(voltage_v, PUBLISHED_TEMPERATURE_C * rows),
    }
    start = {"Odometer": trips.odometer_start_km[index, k], "StateOfCharge": 100.0}
    return _from_the_start(trips.started_at_s[index, k], samples.time_s[index, k], columns, start)


def _circuit(trip: CircuitTrip) -> BusTrip:
    log = trip.log
    columns = {
        "Odometer": trip.odometer_start_km + log.distance_km,
        "Speed": KM_H * log.speed_m_s,
        "Load": np.full_like(log.voltage_v, trip.load_kg),
        "PackCurrent": log.current_a,
        "StateOfCharge": log.soc_percent,
        **_pack(log.voltage_v, log.temperature_c),
    }
    start = {"Odometer": trip.odometer_start_km, "StateOfCharge": log.start_soc_percent}
    return _from_the_start(trip.started_at_s, log.time_s, columns, start)


def _pack(cell_v: FloatArray, temperature_c: FloatArray) -> dict[str, FloatArray]:
    return {
        "PackVoltage": CELLS_IN_SERIES * cell_v,
        "CellVoltageMean": cell_v,
        "CellVoltageMin": cell_v - CELL_SPREAD_V,
        "CellVoltageMax": cell_v + CELL_SPREAD_V,
        "CellTemperatureMean": temperature_c,
        "CellTemperatureMin": temperature_c - TEMPERATURE_SPREAD_C,
        "CellTemperatureMax": temperature_c + TEMPERATURE_SPREAD_C,
        "CoolantTemperature": temperature_c - TEMPERATURE_SPREAD_C,
    }


def _from_the_start(
    started_at_s: float,
    time_s: FloatArray,
    columns: dict[str, FloatArray],
    start: dict[str, float],
) -> BusTrip:
    """The fleet's first sample is taken after a while: before it, values are those of `start`."""
    whole = {n: np.concatenate([[start.get(n, c[0])], c]) for n, c in columns.items()}
    return BusTrip(float(started_at_s), np.concatenate([[0.0], time_s]), whole)
