"""Cells cycled and aged by PyBaMM: a physical model (SPM) whose SEI film grows and takes lithium.

Parameters: LG M50, C.-H. Chen et al., J. Electrochem. Soc. 167 (2020) 080534 (`Chen2020`); growth
limited by the diffusion of solvent through the film, whose diffusivity is multiplied so that a cell
is at about 80 % after 150 cycles instead of thousands. The film grows with the root of time, so the
first cycles cost most: they are the cell's formation, and not recorded. Seeded: each cell has its
own speed of ageing and its own order of discharge rates. PyBaMM is loaded when it is used, not
before: it is the extra `science`. Must never write a file, nor let PyBaMM report to anybody that it
is used.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_sim.errors import ExtraMissingError, SettingsError, SimulationFailedError

FloatArray = npt.NDArray[np.float64]

PARAMETERS: Final = "Chen2020"
CAPACITY: Final = "Capacity [A.h]"
LITHIUM_LOST: Final = "Loss of lithium inventory [%]"
LOGGED: Final = ("Time [s]", "Current [A]", "Discharge capacity [A.h]", "Terminal voltage [V]")
DIFFUSIVITY: Final = "SEI solvent diffusivity [m2.s-1]"
ACCELERATION: Final = 5_000.0
ACCELERATION_SIGMA: Final = 0.3
FORMATION_CYCLES: Final = 20
FORMATION_RATE_C: Final = 0.5
RATES_C: Final = (0.33, 0.5, 1.0)
DISCHARGE_TO_V: Final = 2.8
PERIOD_MINUTES: Final = 1
AFTER_DISCHARGE: Final = (
    "Rest for 10 minutes (10 minute period)",
    "Charge at C/2 until 4.2 V (10 minute period)",
    "Hold at 4.2 V until C/20 (10 minute period)",
)
VOLTAGE_NOISE_V: Final = 0.002
CURRENT_NOISE_A: Final = 0.005
MAX_CYCLES: Final = 2_000


@dataclass(frozen=True)
class CellSettings:
    """What to cycle. Raises `SettingsError` for a value outside its range."""

    cells: int
    cycles: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("cells", 1), ("cycles", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SettingsError(name, getattr(self, name), f"use {least} or more")
        if self.cycles > MAX_CYCLES:
            raise SettingsError("cycles", self.cycles, f"use at most {MAX_CYCLES:,}")


@dataclass(frozen=True, eq=False)
class Cycle:
    """The discharge of one cycle as a BMS logs it, [rows], and the truth at the cycle's end.

    `time_s` and `discharged_ah` count from the discharge's start, `start_s` from the formation's,
    `throughput_ah` is what the cell had given since formation. `lithium_lost` is a share of what
    there was before it.
    """

    start_s: float
    throughput_ah: float
    rate_c: float
    time_s: FloatArray
    current_a: FloatArray
    discharged_ah: FloatArray
    voltage_v: FloatArray
    capacity_ah: float
    lithium_lost: float


@dataclass(frozen=True, eq=False)
class CycledCell:
    """One cell from new on."""

    cell_id: str
    acceleration: float
    cycles: list[Cycle]


@dataclass(frozen=True, eq=False)
class CycledCells:
    """All cells, and what made them."""

    settings: CellSettings
    version: str
    cells: list[CycledCell]


def simulate_cells(
    settings: CellSettings, progress: Callable[[int], None] | None = None
) -> CycledCells:
    """Cycle the cells; `progress` is told how many are done.

    A cell's data do not depend on the number of cells. Raises `ExtraMissingError` without PyBaMM
    and `SimulationFailedError` when its solver gives up.
    """
    pybamm = load_pybamm()
    cells = []
    for index in range(settings.cells):
        cells.append(_cycled(pybamm, settings, index))
        if progress is not None:
            progress(index + 1)
    return CycledCells(settings, str(pybamm.__version__), cells)


def load_pybamm() -> Any:
    """The library, told to be quiet. Raises `ExtraMissingError`."""
    os.environ.setdefault("PYBAMM_DISABLE_TELEMETRY", "true")
    try:
        pybamm: Any = importlib.import_module("pybamm")
    except ImportError as error:
        raise ExtraMissingError("PyBaMM", "science") from error
    pybamm.set_logging_level("CRITICAL")
    return pybamm


def _cycled(pybamm: Any, settings: CellSettings, index: int) -> CycledCell:
    own, noise = (
        np.random.Generator(np.random.PCG64(stream))
        for stream in np.random.SeedSequence(settings.seed, spawn_key=(index,)).spawn(2)
    )
    name = f"P{index + 1:03d}"
    acceleration = ACCELERATION * float(np.exp(own.normal(0.0, ACCELERATION_SIGMA)))
    rates_c = [RATES_C[i] for i in own.integers(0, len(RATES_C), settings.cycles).tolist()]
    solution = _solve(pybamm, acceleration, [*[FORMATION_RATE_C] * FORMATION_CYCLES, *rates_c])
    found = [cycle for cycle in solution.cycles if cycle is not None]
    if len(found) < FORMATION_CYCLES + settings.cycles:
        done = max(len(found) - FORMATION_CYCLES, 0)
        raise SimulationFailedError(name, done, settings.cycles)
    summary = {
        name: np.asarray(solution.summary_variables[name])[FORMATION_CYCLES:]
        for name in (CAPACITY, LITHIUM_LOST)
    }
    cycles: list[Cycle] = []
    for k, solved in enumerate(found[FORMATION_CYCLES:]):
        before = cycles[-1] if cycles else None
        truth = (float(summary[CAPACITY][k]), float(summary[LITHIUM_LOST][k]) / 100.0)
        cycles.append(_recorded(solved.steps[0], rates_c[k], before, truth, noise))
    return CycledCell(name, acceleration, cycles)


def _recorded(
    discharge: Any,
    rate_c: float,
    before: Cycle | None,
    truth: tuple[float, float],
    noise: np.random.Generator,
) -> Cycle:
    """The discharge step of one cycle with the noise of a BMS; `truth` is capacity, lithium."""
    time_s, current_a, given_ah, voltage_v = (
        np.asarray(discharge[name].entries, dtype=np.float64) for name in LOGGED
    )
    rows = len(time_s)
    given_before_ah = before.throughput_ah + float(before.discharged_ah[-1]) if before else 0.0
    return Cycle(
        start_s=float(time_s[0]),
        throughput_ah=given_before_ah,
        rate_c=rate_c,
        time_s=time_s - time_s[0],
        current_a=current_a + noise.normal(0.0, CURRENT_NOISE_A, rows),
        discharged_ah=given_ah - given_ah[0],
        voltage_v=voltage_v + noise.normal(0.0, VOLTAGE_NOISE_V, rows),
        capacity_ah=truth[0],
        lithium_lost=truth[1],
    )


def _solve(pybamm: Any, acceleration: float, rates_c: list[float]) -> Any:
    parameters = pybamm.ParameterValues(PARAMETERS)
    parameters[DIFFUSIVITY] = parameters[DIFFUSIVITY] * acceleration
    model = pybamm.lithium_ion.SPM(
        {"SEI": "solvent-diffusion limited", "SEI film resistance": "average"}
    )
    experiment = pybamm.Experiment([(_discharge(rate_c), *AFTER_DISCHARGE) for rate_c in rates_c])
    simulation = pybamm.Simulation(
        model,
        parameter_values=parameters,
        experiment=experiment,
        solver=pybamm.IDAKLUSolver(),
    )
    return simulation.solve(initial_soc=1.0)


def _discharge(rate_c: float) -> str:
    period = f"({PERIOD_MINUTES} minute period)"
    return f"Discharge at {rate_c:g}C until {DISCHARGE_TO_V:g} V {period}"
