"""The files of cells that PyBaMM cycled: what a BMS logs, and beside it, apart, the truth.

Must never put a column of the truth into a file that edge or cloud read.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from firmware_sim.arrow_columns import chosen, moments
from firmware_sim.dataset_folder import DISCHARGE_CURVES, PYBAMM, TRIPS, TRUTH, Dataset
from firmware_sim.pybamm_cells import ACCELERATION, PARAMETERS, Cycle, CycledCells

FIRST_CYCLE_AT_S: Final = 1_577_836_800.0  # 2020-01-01T00:00:00Z
COLUMNS: Final[dict[str, dict[str, str]]] = {
    TRIPS: {
        "vehicle_id": "name of the cell",
        "trip_id": "name of the cycle, counted per cell",
        "started_at": "start of the discharge, RFC 3339, UTC",
        "odometer_start_ah": "Ah, given before",
        "odometer_end_ah": "Ah, given at the end of the discharge",
        "duration_s": "s, of the discharge",
        "rate_c": "1/h, current over the nominal capacity",
    },
    DISCHARGE_CURVES: {
        "vehicle_id": "name of the cell",
        "trip_id": "name of the cycle, counted per cell",
        "time_s": "s, since the start of the discharge",
        "unix_time_s": "s, Unix time",
        "odometer_ah": "Ah, given since formation",
        "discharged_ah": "Ah, since the start of the discharge",
        "current_a": "A, positive when the cell discharges",
        "voltage_v": "V, as a BMS measures it",
    },
    TRUTH: {
        "vehicle_id": "name of the cell",
        "trip_id": "name of the cycle, counted per cell",
        "capacity_ah": "Ah between 2.5 and 4.2 V at rest, at the end of the cycle",
        "state_of_health": "capacity over that after the first cycle",
        "lithium_lost": "share of the cyclable lithium, formation included, at the cycle's end",
    },
}


def cells_dataset(cells: CycledCells) -> Dataset:
    """The cells as tables."""
    return Dataset(
        kind=PYBAMM,
        source=(
            f"PyBaMM {cells.version}, SPM with solvent-diffusion-limited SEI growth "
            f"(diffusivity times about {ACCELERATION:g}), parameters {PARAMETERS}"
        ),
        settings=asdict(cells.settings),
        vehicles=cells.settings.cells,
        columns=COLUMNS,
        columns_of={
            TRIPS: lambda rows: _trips(cells, rows),
            DISCHARGE_CURVES: lambda rows: _discharge_curves(cells, rows),
            TRUTH: lambda rows: _truth(cells, rows),
        },
    )


def _trips(cells: CycledCells, rows: slice) -> dict[str, Any]:
    cycles = _cycles(cells, rows)
    before_ah = np.array([cycle.throughput_ah for cycle in cycles])
    return {
        **_names(cells, rows, [1] * len(cycles)),
        "started_at": moments(FIRST_CYCLE_AT_S + np.array([cycle.start_s for cycle in cycles])),
        "odometer_start_ah": before_ah,
        "odometer_end_ah": before_ah + [float(cycle.discharged_ah[-1]) for cycle in cycles],
        "duration_s": np.array([float(cycle.time_s[-1]) for cycle in cycles]),
        "rate_c": np.array([cycle.rate_c for cycle in cycles]),
    }


def _discharge_curves(cells: CycledCells, rows: slice) -> dict[str, Any]:
    cycles = _cycles(cells, rows)
    counts = [len(cycle.time_s) for cycle in cycles]
    own = {
        name: np.concatenate([getattr(cycle, name) for cycle in cycles])
        for name in ("time_s", "discharged_ah", "current_a", "voltage_v")
    }
    starts_s = np.repeat([cycle.start_s for cycle in cycles], counts)
    before_ah = np.repeat([cycle.throughput_ah for cycle in cycles], counts)
    return {
        **own,
        **_names(cells, rows, counts),
        "unix_time_s": FIRST_CYCLE_AT_S + starts_s + own["time_s"],
        "odometer_ah": before_ah + own["discharged_ah"],
    }


def _truth(cells: CycledCells, rows: slice) -> dict[str, Any]:
    cycles = _cycles(cells, rows)
    new_ah = [cell.cycles[0].capacity_ah for cell in cells.cells[rows] for _ in cell.cycles]
    capacity_ah = np.array([cycle.capacity_ah for cycle in cycles])
    return {
        **_names(cells, rows, [1] * len(cycles)),
        "capacity_ah": capacity_ah,
        "state_of_health": capacity_ah / new_ah,
        "lithium_lost": np.array([cycle.lithium_lost for cycle in cycles]),
    }


def _cycles(cells: CycledCells, rows: slice) -> list[Cycle]:
    return [cycle for cell in cells.cells[rows] for cycle in cell.cycles]


def _names(cells: CycledCells, rows: slice, counts: list[int]) -> dict[str, Any]:
    """The id columns of a block of cells whose cycles have these numbers of rows, in order."""
    own, cycles = cells.cells[rows], cells.settings.cycles
    cell = np.repeat(np.repeat(np.arange(len(own)), cycles), counts)
    cycle = np.repeat(np.tile(np.arange(cycles), len(own)), counts)
    return {
        "vehicle_id": chosen(cell, [one.cell_id for one in own]),
        "trip_id": chosen(cycle, [f"C{k + 1:04d}" for k in range(cycles)]),
    }
