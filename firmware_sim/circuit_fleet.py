"""The equivalent-circuit fleet: cars on standard cycles whose cells age by calendar and use.

Pure and seeded. Each vehicle lives its own life to the end of its trips; every `km_between_trips`
one trip is recorded second by second, and the ageing in between is integrated without samples. Must
never read a clock or a global random state, nor mix the truth into what the BMS logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.car import cell_power_w
from firmware_sim.circuit_bms import LOG_INTERVAL_S, BmsLog, logged
from firmware_sim.circuit_cell import Aged, FloatArray
from firmware_sim.circuit_habits import TripPlans, draw_vehicle
from firmware_sim.circuit_life import age
from firmware_sim.circuit_trip import Trace, drive
from firmware_sim.drive_cycles import CYCLES, distance_m, speed_m_s
from firmware_sim.errors import SettingsError
from firmware_sim.published_fleet import trip_id, vehicle_id

LONGEST_TRIP_S: Final = 4 * 3600
MAX_SAMPLES: Final = 20_000_000
TRIPS_SIDE_BY_SIDE: Final = 200  # what fits in memory second by second: about 120 MB
KM_BETWEEN_TRIPS: Final = (500.0, 50_000.0)  # the trip itself must fit in between


@dataclass(frozen=True)
class CircuitFleetSettings:
    """What to simulate. Raises `SettingsError` for a value outside its range."""

    vehicles: int
    trips: int
    seed: int
    km_between_trips: float = 2_000.0

    def __post_init__(self) -> None:
        for name, least in (("vehicles", 1), ("trips", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SettingsError(name, getattr(self, name), f"use {least} or more")
        low_km, high_km = KM_BETWEEN_TRIPS
        if not low_km <= self.km_between_trips <= high_km:
            remedy = f"use {low_km:g} to {high_km:g} km"
            raise SettingsError("km_between_trips", self.km_between_trips, remedy)
        total = self.vehicles * self.trips * LONGEST_TRIP_S // LOG_INTERVAL_S
        if total > MAX_SAMPLES:
            remedy = f"{MAX_SAMPLES:,} fit in memory, make several smaller fleets with other seeds"
            raise SettingsError("vehicles × trips × samples", total, remedy)


@dataclass(frozen=True, eq=False)
class CircuitTrip:
    """One recorded trip; `cell` is the truth about its cells at the trip's start."""

    trip_id: str
    started_at_s: float
    odometer_start_km: float
    planned_distance_km: float
    load_kg: float
    ambient_c: float
    log: BmsLog
    cell: Aged


@dataclass(frozen=True, eq=False)
class CircuitVehicle:
    """One vehicle with its recorded trips in order."""

    vehicle_id: str
    trips: list[CircuitTrip]


@dataclass(frozen=True, eq=False)
class CircuitFleet:
    """A simulated fleet."""

    settings: CircuitFleetSettings
    vehicles: list[CircuitVehicle]


def simulate_circuit_fleet(
    settings: CircuitFleetSettings, progress: Callable[[int], None] | None = None
) -> CircuitFleet:
    """Simulate the fleet; `progress` is told how many vehicles are done.

    The same settings give the same bits, and a vehicle's data depend neither on the number of
    vehicles nor on the trips after it. Raises `BatteryWornOutError` when a battery ends before the
    trips do.
    """
    side_by_side = max(TRIPS_SIDE_BY_SIDE // settings.trips, 1)
    vehicles: list[CircuitVehicle] = []
    for first in range(0, settings.vehicles, side_by_side):
        rows = range(first, min(first + side_by_side, settings.vehicles))
        vehicles += _driven([_set_out(settings, index) for index in rows])
        if progress is not None:
            progress(len(vehicles))
    return CircuitFleet(settings, vehicles)


@dataclass(frozen=True, eq=False)
class _SettingOut:
    """A vehicle before its trips are driven: arrays and lists of [trips]."""

    vehicle_id: str
    plans: TripPlans
    odometer_km: FloatArray
    started_at_s: FloatArray
    ambient_c: FloatArray
    cells: list[Aged]
    speeds: list[FloatArray]


def _set_out(settings: CircuitFleetSettings, index: int) -> _SettingOut:
    habits, plans = draw_vehicle(settings.seed, index, settings.trips)
    name = vehicle_id(index)
    odometer_km = settings.km_between_trips * np.arange(settings.trips)
    started_at_s = np.array([habits.unix_s(km) for km in odometer_km.tolist()])
    season_c = np.array([habits.ambient_c(s) for s in started_at_s.tolist()])
    return _SettingOut(
        vehicle_id=name,
        plans=plans,
        odometer_km=odometer_km,
        started_at_s=started_at_s,
        ambient_c=season_c + plans.weather_c,
        cells=age(habits, settings.trips, settings.km_between_trips, name),
        speeds=[_speed(plans, trip) for trip in range(settings.trips)],
    )


def _driven(vehicles: list[_SettingOut]) -> list[CircuitVehicle]:
    """The vehicles with their trips, all of which are driven side by side."""
    traces = iter(
        drive(
            [
                cell_power_w(speed, load_kg, ambient_c)
                for own in vehicles
                for speed, load_kg, ambient_c in zip(
                    own.speeds, own.plans.load_kg.tolist(), own.ambient_c.tolist(), strict=True
                )
            ],
            np.concatenate([own.plans.start_soc for own in vehicles]),
            np.concatenate([own.ambient_c for own in vehicles]),
            np.array([cell.capacity_ah for own in vehicles for cell in own.cells]),
            np.array([cell.growth for own in vehicles for cell in own.cells]),
        )
    )
    return [
        CircuitVehicle(own.vehicle_id, [_trip(own, k, next(traces)) for k in range(len(own.cells))])
        for own in vehicles
    ]


def _trip(own: _SettingOut, k: int, trace: Trace) -> CircuitTrip:
    plans = own.plans
    return CircuitTrip(
        trip_id=trip_id(k),
        started_at_s=float(own.started_at_s[k]),
        odometer_start_km=float(own.odometer_km[k]),
        planned_distance_km=float(plans.planned_km[k]),
        load_kg=float(plans.load_kg[k]),
        ambient_c=float(own.ambient_c[k]),
        log=logged(trace, float(plans.start_soc[k]), own.speeds[k], plans.sensor),
        cell=own.cells[k],
    )


def _speed(plans: TripPlans, trip: int) -> FloatArray:
    """The trip's cycles end to end, as far as planned, and no longer than a driver drives."""
    wanted_m, found = 1000.0 * float(plans.planned_km[trip]), [np.zeros(1)]
    for number in plans.cycles[trip].tolist():
        speed = speed_m_s(CYCLES[number])
        found.append(speed[1:])
        wanted_m -= distance_m(speed)
        if wanted_m <= 0.0:
            break
    whole = np.concatenate(found)
    travelled_m = np.cumsum(0.5 * (whole[1:] + whole[:-1]))
    seconds = int(np.searchsorted(travelled_m, 1000.0 * plans.planned_km[trip]))
    return whole[: min(seconds, LONGEST_TRIP_S) + 1]
