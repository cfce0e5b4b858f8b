"""Thin a trip to the few points that travel: its ends, its knees, and its worst errors.

Pure. Must never invent a point: every point of the trace is one of the trip's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

LEAST_SMOOTHING: Final = 7
# Two worst errors lie at most so many times as dense as evenly spaced points would.
WORST_SPACING: Final = 4


def thin(trip: TraceArrays, points: int) -> TraceArrays:
    """At most `points` rows of the trip, equally spaced in (row + smoothed voltage travel).

    Half of the points follow the rows, half the share of the total voltage travel, smoothed over
    half of what a point stands for, so that noise does not count as travel: the steep end of a
    discharge keeps its points.
    """
    chosen = chosen_rows(trip.voltage_v, points)
    return TraceArrays(trip.time_s[chosen], trip.features[chosen], trip.voltage_v[chosen])


def chosen_rows(voltage_v: FloatArray, points: int) -> IntArray:
    """Increasing row numbers, first and last among them."""
    rows = len(voltage_v)
    if rows <= points:
        return np.arange(rows)
    travel = np.abs(np.diff(_smooth(voltage_v, max(LEAST_SMOOTHING, rows // (2 * points)))))
    density = 1.0 / (rows - 1) + travel / max(travel.sum(), np.finfo(float).tiny)
    position = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.linspace(0.0, position[-1], points)
    chosen: IntArray = np.unique(np.searchsorted(position, wanted - 1e-12).clip(0, rows - 1))
    chosen[0], chosen[-1] = 0, rows - 1
    return chosen


def worst_rows(error_v: FloatArray, most: int, beside: IntArray, points: int) -> IntArray:
    """The rows of the worst errors that are not in `beside`: one of each bad stretch, not all."""
    rows = len(error_v)
    left = np.abs(error_v)
    left[beside] = -1.0
    apart = rows // (WORST_SPACING * points)
    found = []
    for _ in range(most):
        row = int(np.argmax(left))
        if left[row] < 0.0:
            break
        found.append(row)
        left[max(row - apart, 0) : row + apart + 1] = -1.0
    return np.array(found, dtype=np.intp)


def _smooth(values: FloatArray, points: int) -> FloatArray:
    width = min(points, len(values))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")
