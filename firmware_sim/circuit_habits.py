"""Who drives the cars of the equivalent-circuit fleet, where, how and how far: all dice fall here.

Pure and seeded: each vehicle has its own streams, one for each quantity, so that nobody's draws
depend on anybody else's, nor on how many trips follow. Must never use a global random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from firmware_sim.circuit_ageing import Constitution
from firmware_sim.drive_cycles import CYCLES

FloatArray = npt.NDArray[np.float64]

YEAR_DAYS: Final = 365.25
WARMEST_DAY: Final = 200.0
FIRST_DELIVERY_AT_S: Final = 1_577_836_800.0  # 2020-01-01T00:00:00Z
DAY_S: Final = 86_400.0
# Enough of the shortest cycle for the longest trip.
SEGMENTS: Final = 40

SEVERITY_LOG: Final = 0.35  # from exp(-0.35) to exp(0.35) times the average
KNEE_LOSS: Final = (0.16, 0.40)
RESISTANCE_SIGMA: Final = 0.25
MEAN_AMBIENT_C: Final = (11.0, 4.0)
SEASON_C: Final = (6.0, 12.0)
WEATHER_C: Final = 3.0
ANNUAL_KM: Final = (12_000.0, 35_000.0)
LOAD_KG: Final = (75.0, 300.0)
CHARGE_LIMITS: Final = (0.8, 0.9, 1.0)
FULL_CHARGE_SHARE: Final = 0.5  # of the long trips begin with a full battery whatever the habit
TRIP_KM: Final = (100.0, 280.0)
START_SOC_SPREAD: Final = 0.01


@dataclass(frozen=True, eq=False)
class Habits:
    """One vehicle's life: constitution of its cells, climate, mileage, load, mix, charging."""

    constitution: Constitution
    delivered_at_s: float
    mean_ambient_c: float
    season_c: float
    annual_km: float
    load_kg: float
    cycle_shares: FloatArray
    charge_limit: float

    def ambient_c(self, unix_s: float) -> float:
        """The season's temperature at this moment, without the weather."""
        day = (unix_s - FIRST_DELIVERY_AT_S) / DAY_S
        phase = 2.0 * math.pi * (day - WARMEST_DAY) / YEAR_DAYS
        return self.mean_ambient_c + self.season_c * math.cos(phase)

    def unix_s(self, odometer_km: float) -> float:
        """When the vehicle has driven this far."""
        return self.delivered_at_s + odometer_km / self.annual_km * YEAR_DAYS * DAY_S


@dataclass(frozen=True, eq=False)
class TripPlans:
    """What a vehicle's recorded trips set out to be: arrays of [trips]; `cycles` [trips, SEGMENTS].

    `cycles` numbers CYCLES. `sensor` draws what the BMS gets wrong.
    """

    planned_km: FloatArray
    weather_c: FloatArray
    load_kg: FloatArray
    start_soc: FloatArray
    cycles: npt.NDArray[np.intp]
    sensor: tuple[np.random.Generator, ...]


def draw_vehicle(seed: int, index: int, trips: int) -> tuple[Habits, TripPlans]:
    """Vehicle `index` of the fleet with this seed, and its first `trips` recorded trips."""
    own, trip, *sensors = _streams(seed, index)
    habits = _habits(own)
    return habits, _plans(habits, trip, sensors, trips)


def _habits(stream: np.random.SeedSequence) -> Habits:
    rng = _generator(stream)
    constitution = Constitution(
        severity=float(np.exp(rng.uniform(-SEVERITY_LOG, SEVERITY_LOG))),
        knee_loss=float(rng.uniform(*KNEE_LOSS)),
        resistance_share=float(np.exp(rng.normal(0.0, RESISTANCE_SIGMA))),
    )
    shares = rng.exponential(1.0, len(CYCLES))
    return Habits(
        constitution=constitution,
        delivered_at_s=FIRST_DELIVERY_AT_S + DAY_S * float(rng.integers(0, 365)),
        mean_ambient_c=float(rng.normal(*MEAN_AMBIENT_C)),
        season_c=float(rng.uniform(*SEASON_C)),
        annual_km=float(rng.uniform(*ANNUAL_KM)),
        load_kg=float(rng.uniform(*LOAD_KG)),
        cycle_shares=shares / shares.sum(),
        charge_limit=CHARGE_LIMITS[int(rng.integers(0, len(CHARGE_LIMITS)))],
    )


def _plans(
    habits: Habits,
    stream: np.random.SeedSequence,
    sensors: list[np.random.SeedSequence],
    trips: int,
) -> TripPlans:
    distance, weather, load, charge, spread, route = (
        _generator(child) for child in stream.spawn(6)
    )
    full = charge.random(trips) < FULL_CHARGE_SHARE
    start = np.where(full, 1.0, habits.charge_limit) + spread.normal(0.0, START_SOC_SPREAD, trips)
    edges = np.cumsum(habits.cycle_shares)[:-1]
    return TripPlans(
        planned_km=distance.uniform(*TRIP_KM, trips),
        weather_c=weather.normal(0.0, WEATHER_C, trips),
        load_kg=habits.load_kg * load.uniform(0.7, 1.3, trips),
        start_soc=np.minimum(start, 1.0),
        cycles=np.searchsorted(edges, route.random((trips, SEGMENTS))),
        sensor=tuple(_generator(child) for child in sensors),
    )


def _streams(seed: int, index: int) -> list[np.random.SeedSequence]:
    """Of one vehicle: its habits, its trips, and four of its sensors."""
    return np.random.SeedSequence(seed, spawn_key=(index,)).spawn(6)


def _generator(stream: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stream))
