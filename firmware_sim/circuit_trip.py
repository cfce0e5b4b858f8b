"""Drive one car's recorded trips second by second: power in, and what its cells do.

Pure. All trips of a car run side by side, each with its own age, weather and start. Must never add
noise: that is the BMS's, not the cell's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_sim.circuit_cell import (
    EMPTY_V,
    Aged,
    FloatArray,
    State,
    behind_r0_v,
    branches,
    current_for_a,
    rested,
    step_with,
)


@dataclass(frozen=True, eq=False)
class Trace:
    """One trip, one row for each second driven: means of the second, and what is after it."""

    current_a: FloatArray
    voltage_v: FloatArray
    soc: FloatArray
    temperature_c: FloatArray


def drive(
    power_w: Sequence[FloatArray],
    start_soc: FloatArray,
    ambient_c: FloatArray,
    capacity_ah: FloatArray,
    growth: FloatArray,
) -> list[Trace]:
    """Each trip as far as its power [seconds] lasts, or until the battery is empty.

    The current of a second is the one that gives its power at its beginning; the voltage is the
    one at its end. Raises nothing: a trip that begins empty has no row.
    """
    seconds = np.array([len(trip) for trip in power_w])
    padded = np.zeros((int(seconds.max()), len(power_w)))
    for number, trip in enumerate(power_w):
        padded[: len(trip), number] = trip
    ambient_k = ambient_c + 273.15
    state, aged = rested(start_soc, ambient_k), Aged(capacity_ah, growth)
    columns = np.zeros((4, *padded.shape))
    driving = np.ones(len(power_w), dtype=bool)
    driven = np.zeros(len(power_w), dtype=np.intp)
    for second, wanted_w in enumerate(padded):
        driving &= (second < seconds) & (behind_r0_v(state) > EMPTY_V)
        if not driving.any():
            break
        state, current_a, voltage_v = _second(state, wanted_w, driving, aged, ambient_k)
        columns[:, second] = current_a, voltage_v, state.soc, state.temperature_k - 273.15
        driven += driving
    return [Trace(*columns[:, :rows, number]) for number, rows in enumerate(driven)]


def _second(
    state: State, wanted_w: FloatArray, driving: FloatArray, aged: Aged, ambient_k: FloatArray
) -> tuple[State, FloatArray, FloatArray]:
    """One second; a car that stands still at its end draws nothing."""
    circuit = branches(state.soc, state.temperature_k, aged.growth)
    current_a = np.where(driving, current_for_a(wanted_w, state, circuit), 0.0)
    after, voltage_v = step_with(state, circuit, current_a, 1.0, aged, ambient_k)
    return after, current_a, voltage_v
