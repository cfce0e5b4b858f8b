"""A lithium-ion cell as an equivalent circuit: open-circuit voltage, R0, two RC branches, heat.

Pure (numpy in, numpy out; the arguments broadcast). Current is positive when the cell discharges.

- Open-circuit voltage: NMC811 against graphite/SiOx, LG M50 (5 Ah); the half-cell curves of
  C.-H. Chen et al., J. Electrochem. Soc. 167 (2020) 080534, doi 10.1149/1945-7111/ab9050, balanced
  to 2.5–4.2 V with PyBaMM 26.6.2 (`Chen2020`) and tabulated to 0.1 mV. Between the points straight
  lines.
- Resistances and time constants: own figures, of the order that pulse tests of such cells give
  (about 45 mOhm after some minutes at 25 °C). They grow towards an empty cell and, by Arrhenius'
  law, in the cold; the capacitances stay.
- Thermal: one heat capacity and one conductance to the surroundings.

Must never draw a random number, and never share an equation with `battery.py` or with the network
that the twins run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Numbers = FloatArray | float

NEW_CAPACITY_AH: Final = 5.0
FULL_V: Final = 4.2
LOWEST_V: Final = 2.8  # the BMS limits the current so that the cell stays about above this
EMPTY_V: Final = 3.0  # where it calls the battery empty
S_PER_HOUR: Final = 3600.0
GAS_CONSTANT_J_MOL_K: Final = 8.314462618
REFERENCE_K: Final = 298.15

OCV_SOC: Final = np.concatenate(
    [[0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04], np.linspace(0.05, 1.0, 39)]
)
# fmt: off
OCV_V: Final = np.array([
    2.5, 2.6146, 2.7114, 2.7932, 2.8625, 2.9712, 3.0504,
    3.1094, 3.2107, 3.2959, 3.3787, 3.4339, 3.4641, 3.4852, 3.5056, 3.5286, 3.5545, 3.5814, 3.6068,
    3.629, 3.6487, 3.667, 3.6855, 3.7054, 3.7273, 3.7509, 3.775, 3.7983, 3.82, 3.8406, 3.8624,
    3.8896, 3.9206, 3.9479, 3.9713, 3.9943, 4.0181, 4.0421, 4.064, 4.0809, 4.0911, 4.0967, 4.1048,
    4.1236, 4.1564, 4.2,
])
# fmt: on

# Ohmic, charge transfer, diffusion: at 25 °C, half full, new.
RESISTANCES_OHM: Final = (0.022, 0.010, 0.014)
TIME_CONSTANTS_S: Final = (8.0, 180.0)
ACTIVATION_J_MOL: Final = (12_000.0, 40_000.0, 25_000.0)
EMPTY_GAINS: Final = (0.2, 1.0, 2.0)  # what each gains by when the cell is empty ...
EMPTY_SCALE: Final = 0.12  # ... fading over this state of charge
# Ageing reaches the branches unequally: of a growth of R0 by g, this share reaches each.
GROWTH_SHARES: Final = (1.0, 1.4, 0.6)

HEAT_CAPACITY_J_K: Final = 61.0  # 68 g at 900 J/(kg K)
CONDUCTANCE_W_K: Final = 0.03


@dataclass(frozen=True, eq=False)
class Branches:
    """Resistances in ohms and time constants in seconds of the circuit."""

    r0: FloatArray
    r1: FloatArray
    tau1: FloatArray
    r2: FloatArray
    tau2: FloatArray


@dataclass(frozen=True, eq=False)
class State:
    """State of charge [0, 1], voltages over the two RC branches, cell temperature."""

    soc: FloatArray
    v1: FloatArray
    v2: FloatArray
    temperature_k: FloatArray


@dataclass(frozen=True, eq=False)
class Aged:
    """How old a cell is: its capacity, and by which factor its R0 has grown (1 when new)."""

    capacity_ah: Numbers = NEW_CAPACITY_AH
    growth: Numbers = 1.0


def open_circuit_v(soc: Numbers) -> FloatArray:
    """Voltage at rest, V; beyond the ends that of the end."""
    return np.asarray(np.interp(soc, OCV_SOC, OCV_V))


def rested(soc: Numbers, temperature_k: Numbers) -> State:
    """A cell that has rested long enough for its branches to be empty."""
    charge, kelvin = np.broadcast_arrays(*np.atleast_1d(soc, temperature_k))
    return State(charge.copy(), np.zeros(charge.shape), np.zeros(charge.shape), kelvin.copy())


def branches(soc: Numbers, temperature_k: Numbers, growth: Numbers) -> Branches:
    """The circuit at this state of charge, temperature and age."""
    inverse_k = (1.0 / np.asarray(temperature_k) - 1.0 / REFERENCE_K) / GAS_CONSTANT_J_MOL_K
    emptiness = np.exp(-np.asarray(soc) / EMPTY_SCALE)
    aged = np.asarray(growth) - 1.0
    r0, r1, r2 = (
        ohm * np.exp(energy * inverse_k) * (1.0 + gain * emptiness) * (1.0 + share * aged)
        for ohm, energy, gain, share in zip(
            RESISTANCES_OHM, ACTIVATION_J_MOL, EMPTY_GAINS, GROWTH_SHARES, strict=True
        )
    )
    tau1 = TIME_CONSTANTS_S[0] / RESISTANCES_OHM[1] * r1
    tau2 = TIME_CONSTANTS_S[1] / RESISTANCES_OHM[2] * r2
    return Branches(r0, r1, tau1, r2, tau2)


def relaxed(voltage: Numbers, settled: Numbers, elapsed_s: float, tau_s: Numbers) -> FloatArray:
    """v(t) = v_end + (v_0 − v_end) · exp(−t/τ): exact while current and parameters stand still."""
    decay = np.exp(-elapsed_s / np.asarray(tau_s))
    return np.asarray(settled + (np.asarray(voltage) - settled) * decay)


def behind_r0_v(state: State) -> FloatArray:
    """The voltage that would stand at the terminals if the current stopped this instant, V."""
    return np.asarray(open_circuit_v(state.soc) - state.v1 - state.v2)


def current_for_a(power_w: Numbers, state: State, circuit: Branches) -> FloatArray:
    """The current at which the cell gives this power at its terminals, A.

    P = I · (U − I · R0) with U behind R0. The BMS holds back what would lift the cell above FULL_V
    or push it below LOWEST_V.
    """
    behind_v = behind_r0_v(state)
    root = np.sqrt(np.maximum(np.square(behind_v) - 4.0 * circuit.r0 * power_w, 0.0))
    wanted = (behind_v - root) / (2.0 * circuit.r0)
    most_charge = np.minimum((behind_v - FULL_V) / circuit.r0, 0.0)
    most_discharge = np.maximum((behind_v - LOWEST_V) / circuit.r0, 0.0)
    return np.asarray(np.minimum(np.maximum(wanted, most_charge), most_discharge))


def step(
    state: State, current_a: Numbers, step_s: float, aged: Aged, ambient_k: Numbers
) -> tuple[State, FloatArray]:
    """The state after `step_s` of constant current, and the terminal voltage then, V.

    Circuit and heat of the step are those of its start; the branches and the temperature are
    integrated exactly for them.
    """
    circuit = branches(state.soc, state.temperature_k, aged.growth)
    return step_with(state, circuit, current_a, step_s, aged, ambient_k)


def step_with(
    state: State,
    circuit: Branches,
    current_a: Numbers,
    step_s: float,
    aged: Aged,
    ambient_k: Numbers,
) -> tuple[State, FloatArray]:
    """`step` for a caller who has the circuit of this state already."""
    heat_w = heat_of_w(state, circuit, current_a)
    settled_k = ambient_k + heat_w / CONDUCTANCE_W_K
    after = State(
        soc=state.soc
        - np.asarray(current_a) * step_s / (S_PER_HOUR * np.asarray(aged.capacity_ah)),
        v1=relaxed(state.v1, current_a * circuit.r1, step_s, circuit.tau1),
        v2=relaxed(state.v2, current_a * circuit.r2, step_s, circuit.tau2),
        temperature_k=relaxed(
            state.temperature_k, settled_k, step_s, HEAT_CAPACITY_J_K / CONDUCTANCE_W_K
        ),
    )
    voltage_v = open_circuit_v(after.soc) - after.v1 - after.v2 - current_a * circuit.r0
    return after, np.asarray(voltage_v)


def heat_of_w(state: State, circuit: Branches, current_a: Numbers) -> FloatArray:
    """Heat that the resistances give off, W; the reversible heat is left out."""
    in_branches = np.square(state.v1) / circuit.r1 + np.square(state.v2) / circuit.r2
    return np.asarray(np.square(current_a) * circuit.r0 + in_branches)
