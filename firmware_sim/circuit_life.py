"""One vehicle's life between its recorded trips: how old its cells are at the start of each.

Pure. Must never simulate a trip: ageing in between is integrated month by month, without samples.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from firmware_sim.car import cell_power_w
from firmware_sim.circuit_ageing import NEW, Stretch, Wear, aged, capacity_loss, worn
from firmware_sim.circuit_cell import Aged
from firmware_sim.circuit_habits import DAY_S, Habits
from firmware_sim.drive_cycles import CYCLES, distance_m, speed_m_s
from firmware_sim.errors import BatteryWornOutError

STRETCH_DAYS: Final = 30.0
NOMINAL_V: Final = 3.65
BATTERY_ABOVE_AMBIENT_K: Final = 3.0  # of driving and charging, over the year
MEAN_SOC_BELOW_LIMIT: Final = 0.25
WORN_OUT_LOSS: Final = 0.6


def age(habits: Habits, trips: int, km_between_trips: float, name: str) -> list[Aged]:
    """The cells at the start of each recorded trip of the vehicle `name`; new at the first.

    Raises `BatteryWornOutError`.
    """
    throughput_ah = throughput_ah_per_km(habits) * km_between_trips
    wear, cells = NEW, []
    for k in range(trips):
        if k:
            begins_km = (k - 1) * km_between_trips
            wear = _between(wear, habits, begins_km, km_between_trips, throughput_ah)
        if capacity_loss(wear, habits.constitution) > WORN_OUT_LOSS:
            raise BatteryWornOutError(name, k, trips)
        cells.append(aged(wear, habits.constitution))
    return cells


def _between(
    wear: Wear, habits: Habits, begins_km: float, length_km: float, throughput_ah: float
) -> Wear:
    """The wear after the kilometres between two recorded trips, month by month."""
    begins_s, ends_s = habits.unix_s(begins_km), habits.unix_s(begins_km + length_km)
    parts = math.ceil((ends_s - begins_s) / (STRETCH_DAYS * DAY_S))
    seconds = (ends_s - begins_s) / parts
    for part in range(parts):
        ambient_c = habits.ambient_c(begins_s + (part + 0.5) * seconds)
        stretch = Stretch(
            seconds=seconds,
            throughput_ah=throughput_ah / parts,
            temperature_k=ambient_c + BATTERY_ABOVE_AMBIENT_K + 273.15,
            mean_soc=habits.charge_limit - MEAN_SOC_BELOW_LIMIT,
        )
        wear = worn(wear, stretch, habits.constitution.severity)
    return wear


def throughput_ah_per_km(habits: Habits) -> float:
    """Charge through a cell for each kilometre, in and out, charging included, Ah/km."""
    through_ah = driven_km = 0.0
    for cycle, share in zip(CYCLES, habits.cycle_shares.tolist(), strict=True):
        speed = speed_m_s(cycle)
        power_w = cell_power_w(speed, habits.load_kg, habits.mean_ambient_c)
        both_ways_wh = (np.abs(power_w).sum() + power_w.sum()) / 3600.0
        through_ah += share * float(both_ways_wh) / NOMINAL_V
        driven_km += share * distance_m(speed) / 1000.0
    return through_ah / driven_km
