"""The published fleet: vehicles that drive trip after trip while their batteries age apart.

Pure and seeded. The trips follow `norm_route_generator.py` in aws-samples/aws-do-pm (MIT-0):
distance N(200, 20) miles, duration N(5, 0.5) h, load N(10000, 1000) lb, one trip a day from
2020-01-01. Unlike there, a trip that empties the battery ages it by the distance and the time that
were driven, not by those that were planned, and the voltage carries the noise of a BMS. Must never
read a clock, a file or a global random state, nor mix the truth into what the BMS measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim import battery
from firmware_sim.battery import FloatArray
from firmware_sim.errors import BatteryWornOutError, SettingsError
from firmware_sim.trip_plans import TripPlans, draw_plans

FIRST_TRIP_AT_S: Final = 1_577_836_800  # 2020-01-01T00:00:00Z
TRIP_INTERVAL_S: Final = 86_400
# The last tenth of the distance gets about a third of the samples: the steep end of the discharge.
DENSE_DISTANCE_SHARE: Final = 0.1
DENSE_SAMPLES_SHARE: Final = 55 / 175
SMALLEST: Final = {"vehicles": 1, "trips": 1, "seed": 0, "samples_per_trip": 10}
MAX_SAMPLES: Final = 50_000_000
MAX_NOISE_V: Final = 1.0
# A battery this old is surely worn out; the formulas end at 1.
WORN_OUT: Final = 0.99
# From 3 upwards the published consumption could become negative.
MAX_SCALER: Final = 3.0


@dataclass(frozen=True)
class FleetSettings:
    """What to simulate; the two scalers are one number for all vehicles or one per vehicle.

    Raises `SettingsError` for a value outside its range.
    """

    vehicles: int
    trips: int
    seed: int
    noise_std_v: float = 0.01
    samples_per_trip: int = 175
    rolling_friction: float | tuple[float, ...] = 1.0
    aerodynamic_drag: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name, least in SMALLEST.items():
            value = getattr(self, name)
            _require(name, value, f"use {least} or more", ok=value >= least)
        noise_v, most_v = self.noise_std_v, MAX_NOISE_V
        _require("noise_std_v", noise_v, f"use 0 to {most_v:g} V", ok=0.0 <= noise_v <= most_v)
        total = self.vehicles * self.trips * self.samples_per_trip
        remedy = f"{MAX_SAMPLES:,} fit in memory, make several smaller fleets with other seeds"
        _require("vehicles × trips × samples", total, remedy, ok=total <= MAX_SAMPLES)
        for name in ("rolling_friction", "aerodynamic_drag"):
            _require_scaler(name, getattr(self, name), self.vehicles)


@dataclass(frozen=True, eq=False)
class TripColumns:
    """What is known of each trip, arrays of [vehicles, trips].

    `distance_km` and `duration_s` are what was driven: the trip ends where it was planned to or
    where the battery is empty. `started_at_s` is Unix time.
    """

    started_at_s: FloatArray
    odometer_start_km: FloatArray
    planned_distance_km: FloatArray
    distance_km: FloatArray
    duration_s: FloatArray
    average_speed_m_s: FloatArray
    load_kg: FloatArray
    rolling_friction: FloatArray
    aerodynamic_drag: FloatArray


@dataclass(frozen=True, eq=False)
class SampleColumns:
    """What the BMS measures, arrays of [vehicles, trips, samples].

    `time_s` counts from the start of the trip, `distance_km` too; both rise strictly.
    """

    time_s: FloatArray
    distance_km: FloatArray
    voltage_v: FloatArray


@dataclass(frozen=True, eq=False)
class TruthColumns:
    """What no vehicle can measure: [vehicles, trips] at the start of each trip; voltage per sample.

    `capacity_wh` (end of the curve) and `usable_energy_wh` (down to 2.0 V) are per cell,
    `state_of_health` is usable energy over that of a new cell, `range_km` at 40 mph and 10,000 lb.
    """

    degradation: FloatArray
    capacity_wh: FloatArray
    usable_energy_wh: FloatArray
    state_of_health: FloatArray
    range_km: FloatArray
    voltage_true_v: FloatArray


@dataclass(frozen=True, eq=False)
class FleetData:
    """A simulated fleet: row i of every array is `vehicle_ids[i]`, column k is `trip_ids[k]`."""

    settings: FleetSettings
    vehicle_ids: tuple[str, ...]
    trip_ids: tuple[str, ...]
    trips: TripColumns
    samples: SampleColumns
    truth: TruthColumns

    def degradation_at_end(self) -> FloatArray:
        """Degradation of each vehicle after its last trip, [vehicles]."""
        trips = self.trips
        return battery.degradation(
            trips.distance_km.sum(axis=1), trips.duration_s.sum(axis=1), trips.load_kg.sum(axis=1)
        )


def simulate_fleet(
    settings: FleetSettings, progress: Callable[[int], None] | None = None
) -> FleetData:
    """Simulate the fleet; `progress` is told how many vehicles are done.

    The same settings give the same bits, and a vehicle's data depend neither on the number of
    vehicles nor on the trips after it. Raises `BatteryWornOutError` when a battery ends before the
    trips do.
    """
    plans = draw_plans(settings.vehicles, settings.trips, settings.seed)
    trips, degradation = _drive(settings, plans)
    samples, voltage_true_v = _measure(settings, trips, degradation, plans.noise, progress)
    return FleetData(
        settings=settings,
        vehicle_ids=tuple(vehicle_id(index) for index in range(settings.vehicles)),
        trip_ids=tuple(trip_id(index) for index in range(settings.trips)),
        trips=trips,
        samples=samples,
        truth=_truth(degradation, voltage_true_v),
    )


def vehicle_id(index: int) -> str:
    """Name of the vehicle in row `index`: V001, V002 and so on."""
    return f"V{index + 1:03d}"


def trip_id(index: int) -> str:
    """Name of the trip in column `index`: T0001, T0002 and so on."""
    return f"T{index + 1:04d}"


def sample_grid(samples_per_trip: int) -> FloatArray:
    """Shares of the driven distance at which the BMS samples, [samples], rising from 0+ to 1."""
    dense = round(samples_per_trip * DENSE_SAMPLES_SHARE)
    coarse = samples_per_trip - dense
    knee = 1.0 - DENSE_DISTANCE_SHARE
    first = np.linspace(0.0, knee, coarse + 1)[1:]
    return np.concatenate([first, np.linspace(knee, 1.0, dense + 1)[1:]])


def _drive(settings: FleetSettings, plans: TripPlans) -> tuple[TripColumns, FloatArray]:
    """The trips as driven, and the degradation at the start of each, [vehicles, trips]."""
    shape = plans.distance_km.shape
    rolling = _per_trip(settings.rolling_friction, shape)
    drag = _per_trip(settings.aerodynamic_drag, shape)
    speed_m_s = 1000.0 * plans.distance_km / plans.duration_s
    per_km = battery.cell_energy_wh_per_km(speed_m_s, plans.load_kg, rolling, drag)
    driven_km, degradation = _age(plans, per_km)
    trips = TripColumns(
        started_at_s=_per_trip(FIRST_TRIP_AT_S, shape) + TRIP_INTERVAL_S * np.arange(shape[1]),
        odometer_start_km=np.cumsum(driven_km, axis=1) - driven_km,
        planned_distance_km=plans.distance_km,
        distance_km=driven_km,
        duration_s=plans.duration_s * driven_km / plans.distance_km,
        average_speed_m_s=speed_m_s,
        load_kg=plans.load_kg,
        rolling_friction=rolling,
        aerodynamic_drag=drag,
    )
    return trips, degradation


def _age(plans: TripPlans, per_km: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Trip by trip: as far as planned or as the battery carries, then older by what was driven."""
    driven_km, degradation = np.zeros_like(per_km), np.zeros_like(per_km)
    km, s, kg = np.zeros((3, len(per_km)))
    for k in range(per_km.shape[1]):
        degradation[:, k] = battery.degradation(km, s, kg)
        _require_alive(degradation[:, k], k, per_km.shape[1])
        reach_km = battery.cell_capacity_wh(degradation[:, k]) / per_km[:, k]
        driven_km[:, k] = np.minimum(plans.distance_km[:, k], reach_km)
        km = km + driven_km[:, k]
        s = s + plans.duration_s[:, k] * driven_km[:, k] / plans.distance_km[:, k]
        kg = kg + plans.load_kg[:, k]
    return driven_km, degradation


def _per_trip(value: float | tuple[float, ...], shape: tuple[int, ...]) -> FloatArray:
    """One value per vehicle (or one for all), repeated for every trip: [vehicles, trips]."""
    per_vehicle = np.broadcast_to(np.asarray(value, dtype=np.float64), shape[:1])
    return np.repeat(per_vehicle[:, None], shape[1], axis=1)


def _require_alive(degradation: FloatArray, trips_driven: int, trips_asked: int) -> None:
    usable = battery.usable_energy_wh(np.minimum(degradation, WORN_OUT))
    dead = np.flatnonzero(usable <= 0.0)
    if dead.size:
        raise BatteryWornOutError(vehicle_id(int(dead[0])), trips_driven, trips_asked)


def _measure(
    settings: FleetSettings,
    trips: TripColumns,
    degradation: FloatArray,
    noise: tuple[np.random.Generator, ...],
    progress: Callable[[int], None] | None,
) -> tuple[SampleColumns, FloatArray]:
    """The samples of every trip and, apart from them, the voltage without noise."""
    per_km = battery.cell_energy_wh_per_km(
        trips.average_speed_m_s, trips.load_kg, trips.rolling_friction, trips.aerodynamic_drag
    )
    grid = sample_grid(settings.samples_per_trip)
    distance_km = trips.distance_km[..., None] * grid
    voltage_v, voltage_true_v = np.empty_like(distance_km), np.empty_like(distance_km)
    for i, rng in _counted(noise, progress):
        energy_wh = distance_km[i] * per_km[i, :, None]
        voltage_true_v[i] = battery.cell_voltage_v(energy_wh, degradation[i, :, None])
        voltage_v[i] = voltage_true_v[i] + rng.normal(0.0, settings.noise_std_v, energy_wh.shape)
    return SampleColumns(trips.duration_s[..., None] * grid, distance_km, voltage_v), voltage_true_v


def _counted(
    noise: tuple[np.random.Generator, ...], progress: Callable[[int], None] | None
) -> Iterator[tuple[int, np.random.Generator]]:
    for index, rng in enumerate(noise):
        yield index, rng
        if progress is not None:
            progress(index + 1)


def _truth(degradation: FloatArray, voltage_true_v: FloatArray) -> TruthColumns:
    usable = battery.usable_energy_wh(degradation)
    return TruthColumns(
        degradation=degradation,
        capacity_wh=battery.cell_capacity_wh(degradation),
        usable_energy_wh=usable,
        state_of_health=usable / battery.usable_energy_wh(0.0),
        range_km=battery.range_km(usable),
        voltage_true_v=voltage_true_v,
    )


def _require(setting: str, value: object, remedy: str, *, ok: bool) -> None:
    if not ok:
        raise SettingsError(setting, value, remedy)


def _require_scaler(setting: str, value: float | tuple[float, ...], vehicles: int) -> None:
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    remedy = (
        f"use one number above 0 and below {MAX_SCALER:g}, or one for each of {vehicles} vehicles"
    )
    fits = np.ndim(value) == 0 or values.size == vehicles
    _require(setting, value, remedy, ok=fits and bool(((values > 0) & (values < MAX_SCALER)).all()))
