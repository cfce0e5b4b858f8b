"""Thin a trip to the few points that travel: both ends, and more of them where the voltage moves.

Pure. Must never invent a point: every point of the trace is one of the trip's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

SMOOTHING_POINTS = 7


def thin(trip: TraceArrays, points: int) -> TraceArrays:
    """At most `points` rows of the trip, equally spaced in (row + smoothed voltage travel).

    Half of the points follow the rows, half the share of the total voltage travel, smoothed so
    that noise does not count as travel: the steep end of a discharge keeps its points.
    """
    chosen = chosen_rows(trip.voltage_v, points)
    return TraceArrays(trip.time_s[chosen], trip.features[chosen], trip.voltage_v[chosen])


def chosen_rows(voltage_v: FloatArray, points: int) -> npt.NDArray[np.intp]:
    """Increasing row numbers, first and last among them."""
    rows = len(voltage_v)
    if rows <= points:
        return np.arange(rows)
    travel = np.abs(np.diff(_smooth(voltage_v)))
    density = 1.0 / (rows - 1) + travel / max(travel.sum(), np.finfo(float).tiny)
    position = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.linspace(0.0, position[-1], points)
    chosen: npt.NDArray[np.intp] = np.unique(
        np.searchsorted(position, wanted - 1e-12).clip(0, rows - 1)
    )
    chosen[0], chosen[-1] = 0, rows - 1
    return chosen


def _smooth(values: FloatArray) -> FloatArray:
    width = min(SMOOTHING_POINTS, len(values))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")
