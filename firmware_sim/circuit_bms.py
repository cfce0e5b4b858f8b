"""What a BMS makes of a trip: means of half a minute with noise, and charge counted by its sensor.

Pure and seeded. At the trip's start the battery has rested and the BMS reads its state of charge
off the voltage, with an error; from there it counts ampere-hours by a current sensor that has an
offset, over the *nominal* capacity, as it does not know the real one. Must never see the truth but
through its sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.circuit_cell import NEW_CAPACITY_AH, S_PER_HOUR, FloatArray
from firmware_sim.circuit_trip import Trace

LOG_INTERVAL_S: Final = 30
VOLTAGE_NOISE_V: Final = 0.002
CURRENT_NOISE_A: Final = 0.01
CURRENT_OFFSET_A: Final = 0.005
TEMPERATURE_NOISE_C: Final = 0.3
START_SOC_ERROR: Final = 0.005


@dataclass(frozen=True, eq=False)
class BmsLog:
    """One trip as it is logged, arrays of [rows]; per cell; the time is the end of each interval.

    `discharged_ah` counts from the trip's start; `start_soc_percent` is one number for the trip.
    """

    time_s: FloatArray
    distance_km: FloatArray
    speed_m_s: FloatArray
    current_a: FloatArray
    discharged_ah: FloatArray
    start_soc_percent: float
    soc_percent: FloatArray
    temperature_c: FloatArray
    voltage_v: FloatArray


def logged(
    trace: Trace,
    start_soc: float,
    speed_m_s: FloatArray,
    sensors: tuple[np.random.Generator, ...],
) -> BmsLog:
    """The log of a trip along a speed trace; a last interval that is not full is not logged.

    `sensors` are the streams of voltage, current, temperature, and what is one error for a trip.
    """
    voltage, current, temperature, trip = sensors
    rows = len(trace.current_a) // LOG_INTERVAL_S
    offset_a = trip.normal(0.0, CURRENT_OFFSET_A)
    read_soc = min(start_soc + trip.normal(0.0, START_SOC_ERROR), 1.0)
    current_a = _means(trace.current_a) + offset_a + current.normal(0.0, CURRENT_NOISE_A, rows)
    discharged_ah = np.cumsum(current_a) * LOG_INTERVAL_S / S_PER_HOUR
    ends = LOG_INTERVAL_S * np.arange(1, rows + 1)
    middles = 0.5 * (speed_m_s[1:] + speed_m_s[:-1])[: len(trace.current_a)]
    noise_c = temperature.normal(0.0, TEMPERATURE_NOISE_C, rows)
    return BmsLog(
        time_s=ends.astype(np.float64),
        distance_km=np.cumsum(middles)[ends - 1] / 1000.0,
        speed_m_s=_means(middles),
        current_a=current_a,
        discharged_ah=discharged_ah,
        start_soc_percent=100.0 * read_soc,
        soc_percent=100.0 * (read_soc - discharged_ah / NEW_CAPACITY_AH),
        temperature_c=trace.temperature_c[ends - 1] + noise_c,
        voltage_v=_means(trace.voltage_v) + voltage.normal(0.0, VOLTAGE_NOISE_V, rows),
    )


def _means(values: FloatArray) -> FloatArray:
    rows = len(values) // LOG_INTERVAL_S
    means: FloatArray = values[: rows * LOG_INTERVAL_S].reshape(rows, LOG_INTERVAL_S).mean(axis=1)
    return means
