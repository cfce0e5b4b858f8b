"""What an equivalent-circuit cell is worth: charge, energy and range at reference conditions.

Pure. The reference discharge is slow enough to be settled: constant current, 25 °C, both RC
branches at rest with it. Its end is where a twin reads its state of health (`common/health.py`),
too. Must never depend on a trip.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from firmware_sim.car import CELLS, cell_power_w
from firmware_sim.circuit_cell import (
    EMPTY_V,
    NEW_CAPACITY_AH,
    REFERENCE_K,
    Aged,
    FloatArray,
    branches,
    open_circuit_v,
)
from firmware_sim.drive_cycles import distance_m, speed_m_s

REFERENCE_CURRENT_A: Final = 1.5
REFERENCE_LOAD_KG: Final = 150.0
REFERENCE_C: Final = 23.0  # of the WLTP
GRID: Final = np.linspace(1.0, 0.0, 4001)


def settled_v(soc: FloatArray, current_a: float, growth: float) -> FloatArray:
    """Terminal voltage at 25 °C after this current has flowed for long, V."""
    circuit = branches(soc, REFERENCE_K, growth)
    return open_circuit_v(soc) - current_a * (circuit.r0 + circuit.r1 + circuit.r2)


def usable_charge_ah(
    aged: Aged, cut_off_v: float = EMPTY_V, current_a: float = REFERENCE_CURRENT_A
) -> float:
    """Charge that a full cell gives before its voltage falls to the cut-off, Ah; 0 if none."""
    voltage_v = settled_v(GRID, current_a, float(aged.growth))
    if voltage_v[0] <= cut_off_v:
        return 0.0
    empty = np.interp(-cut_off_v, -voltage_v, GRID)
    return float(aged.capacity_ah * (1.0 - empty))


def usable_energy_wh(aged: Aged) -> float:
    """Energy that a full cell gives before its voltage falls to EMPTY_V, Wh."""
    charge_ah = np.linspace(0.0, usable_charge_ah(aged), len(GRID))
    soc = 1.0 - charge_ah / float(aged.capacity_ah)
    voltage_v = settled_v(soc, REFERENCE_CURRENT_A, float(aged.growth))
    return float((0.5 * (voltage_v[1:] + voltage_v[:-1]) * np.diff(charge_ah)).sum())


def reference_wh_per_km() -> float:
    """What a kilometre of the WLTC at 23 °C takes from one cell, Wh/km."""
    speed = speed_m_s("wltc")
    energy_wh = cell_power_w(speed, REFERENCE_LOAD_KG, REFERENCE_C).sum() / 3600.0
    return float(energy_wh / (distance_m(speed) / 1000.0))


def range_km(aged: Aged) -> float:
    """How far the car comes on the reference drive with a full battery, km."""
    return usable_energy_wh(aged) / reference_wh_per_km()


def pack_energy_kwh() -> float:
    """Nominal energy of a new pack, kWh."""
    return CELLS * usable_energy_wh(Aged(NEW_CAPACITY_AH, 1.0)) / 1000.0
