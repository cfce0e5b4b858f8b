"""What a drive costs: electric power of a compact battery-electric car along a speed trace.

Pure. Longitudinal dynamics: inertia, rolling resistance, air drag, a constant efficiency of the
drive train either way, auxiliaries and air conditioning. The figures are those of no car in
particular, but of a compact one. Must never know of a battery but how many cells share the power.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

GRAVITY_M_S2: Final = 9.81
AIR_DENSITY_KG_M3: Final = 1.2041  # at 20 °C and sea level
AIR_DENSITY_AT_K: Final = 293.15
ZERO_C_IN_K: Final = 273.15

KERB_MASS_KG: Final = 1_500.0
ROTATING_SHARE: Final = 0.04  # what wheels and motor add to the inertia
DRAG_AREA_M2: Final = 0.65  # drag coefficient times frontal area
ROLLING_COEFFICIENT: Final = 0.0095
DRIVE_EFFICIENCY: Final = 0.88
REGENERATION_EFFICIENCY: Final = 0.65
AUXILIARY_W: Final = 300.0
HEATING_W_PER_K: Final = 65.0
HEATING_BELOW_C: Final = 18.0
COOLING_W_PER_K: Final = 50.0
COOLING_ABOVE_C: Final = 24.0

SERIES_CELLS: Final = 96
PARALLEL_CELLS: Final = 22
CELLS: Final = SERIES_CELLS * PARALLEL_CELLS


def wheel_force_n(speed_m_s: FloatArray, load_kg: float, ambient_c: float) -> FloatArray:
    """Mean force at the wheels in each second of a trace [seconds+1] that changes evenly, N."""
    mass_kg = KERB_MASS_KG + load_kg
    middle = 0.5 * (speed_m_s[1:] + speed_m_s[:-1])
    density = AIR_DENSITY_KG_M3 * AIR_DENSITY_AT_K / (ambient_c + ZERO_C_IN_K)
    inertia = (1.0 + ROTATING_SHARE) * mass_kg * np.diff(speed_m_s)
    rolling = ROLLING_COEFFICIENT * mass_kg * GRAVITY_M_S2 * (middle > 0.0)
    drag = 0.5 * density * DRAG_AREA_M2 * np.square(middle)
    return np.asarray(inertia + rolling + drag)


def cell_power_w(speed_m_s: FloatArray, load_kg: float, ambient_c: float) -> FloatArray:
    """Power that each cell gives (negative: takes) in each second of the trace, [seconds], W."""
    middle = 0.5 * (speed_m_s[1:] + speed_m_s[:-1])
    wheel_w = wheel_force_n(speed_m_s, load_kg, ambient_c) * middle
    factor = np.where(wheel_w > 0.0, 1.0 / DRIVE_EFFICIENCY, REGENERATION_EFFICIENCY)
    return np.asarray((wheel_w * factor + auxiliary_w(ambient_c)) / CELLS)


def auxiliary_w(ambient_c: float) -> float:
    """Lights, electronics and air conditioning, W."""
    heating_k = max(HEATING_BELOW_C - ambient_c, 0.0)
    cooling_k = max(ambient_c - COOLING_ABOVE_C, 0.0)
    return AUXILIARY_W + HEATING_W_PER_K * heating_k + COOLING_W_PER_K * cooling_k
