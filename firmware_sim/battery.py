"""The published battery: what a kilometre costs, how a cell's voltage falls, how it ages.

Pure (numpy in, numpy out). The figures are those of `norm_route_generator.py` in
aws-samples/aws-do-pm (MIT-0), where they stand in miles, pounds and hours; they are converted here,
once. Must never draw a random number and never read or write anything.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KM_PER_MILE: Final = 1.609344
M_S_PER_MPH: Final = 0.44704
KG_PER_LB: Final = 0.45359237
S_PER_HOUR: Final = 3600.0

CELLS: Final = 30_000
CUT_OFF_V: Final = 2.0
NEW_ENERGY_WH: Final = np.array([0.0, 0.4, 1.0, 2.0, 3.0, 4.0, 4.2, 4.6, 4.7, 4.8, 5.0])
NEW_VOLTAGE_V: Final = np.array([4.75, 4.5, 4.4, 4.3, 4.2, 4.1, 4.05, 4.0, 3.8, 3.7, 2.0])

BASE_WH_PER_KM: Final = 50_000.0 / (80.0 * KM_PER_MILE)
SPEED_SCALE_M_S: Final = 60.0 * M_S_PER_MPH
LOAD_SCALE_KG: Final = 10_000.0 * KG_PER_LB
SPEED_SHARE: Final = 0.3
LOAD_SHARE: Final = 0.2
DRAG_SHARE: Final = 0.3
ROLLING_SHARE: Final = 0.1

AGEING_BASE: Final = 1.35
AGEING_SHARE: Final = 0.01
AGEING_DISTANCE_KM: Final = 2_000.0 * KM_PER_MILE
AGEING_DURATION_S: Final = 40.0 * S_PER_HOUR
AGEING_LOAD_KG: Final = 100_000.0 * KG_PER_LB

REFERENCE_SPEED_M_S: Final = 40.0 * M_S_PER_MPH
REFERENCE_LOAD_KG: Final = 10_000.0 * KG_PER_LB


def cell_energy_wh_per_km(
    average_speed_m_s: FloatArray | float,
    load_kg: FloatArray | float,
    rolling_friction: FloatArray | float = 1.0,
    aerodynamic_drag: FloatArray | float = 1.0,
) -> FloatArray:
    """Energy that one kilometre takes from one cell, Wh/km; the arguments broadcast.

    The two scalers enter as (1 − scaler), as published: 1 is the reference, less costs more.
    """
    factor = (
        1.0
        + SPEED_SHARE * np.square(np.asarray(average_speed_m_s) / SPEED_SCALE_M_S)
        + LOAD_SHARE * np.asarray(load_kg) / LOAD_SCALE_KG
        + DRAG_SHARE * (1.0 - np.asarray(aerodynamic_drag))
        + ROLLING_SHARE * (1.0 - np.asarray(rolling_friction))
    )
    return np.asarray(BASE_WH_PER_KM / CELLS * factor, dtype=np.float64)


def cell_capacity_wh(degradation: FloatArray | float) -> FloatArray:
    """Energy at which the discharge curve of one cell ends, Wh, for `degradation` in [0, 1)."""
    return np.asarray(NEW_ENERGY_WH[-1] * (1.0 - np.asarray(degradation)), dtype=np.float64)


def cell_voltage_v(energy_wh: FloatArray | float, degradation: FloatArray | float) -> FloatArray:
    """Voltage of a cell after `energy_wh` were taken from it, V; the arguments broadcast.

    `degradation` in [0, 1) shrinks both axes of the curve of a new cell by (1 − degradation);
    beyond an end of the curve the voltage stays at that end's.
    """
    remaining = 1.0 - np.asarray(degradation)
    as_new_wh = np.asarray(energy_wh) / remaining
    return np.asarray(np.interp(as_new_wh, NEW_ENERGY_WH, NEW_VOLTAGE_V) * remaining)


def usable_energy_wh(degradation: FloatArray | float, cut_off_v: float = CUT_OFF_V) -> FloatArray:
    """Energy that a full cell gives before its voltage falls to `cut_off_v`, Wh; 0 if worn out."""
    remaining = 1.0 - np.asarray(degradation)
    as_new_v = cut_off_v / remaining
    return np.asarray(np.interp(as_new_v, NEW_VOLTAGE_V[::-1], NEW_ENERGY_WH[::-1]) * remaining)


def range_km(usable_wh: FloatArray | float) -> FloatArray:
    """Distance that `usable_wh` per cell carries the vehicle at reference speed and load, km."""
    per_km = cell_energy_wh_per_km(REFERENCE_SPEED_M_S, REFERENCE_LOAD_KG)
    return np.asarray(np.asarray(usable_wh) / per_km, dtype=np.float64)


def degradation(
    distance_km: FloatArray | float, duration_s: FloatArray | float, load_kg: FloatArray | float
) -> FloatArray:
    """Share of the battery lost after this cumulated distance, driving time and load; 0 if new."""
    exponents = (
        np.asarray(distance_km) / AGEING_DISTANCE_KM,
        np.asarray(duration_s) / AGEING_DURATION_S,
        np.asarray(load_kg) / AGEING_LOAD_KG,
    )
    return np.asarray(AGEING_SHARE * sum(AGEING_BASE**exponent - 1.0 for exponent in exponents))
