"""Split a training table by whole trips, so that an error is measured on trips never seen.

And the trips that stand for all of them later on. Pure and seeded. Must never put rows of one trip
on both sides, except where there is one trip only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.thinning import chosen_rows

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

HELD_SHARE: Final = 0.2
TYPICAL_TRIPS: Final = 20
TRIP_POINTS: Final = 50  # as many as a vehicle's trace has unless it is told otherwise


def held_out_rows(trip: IntArray, rng: np.random.Generator) -> BoolArray:
    """Mask [n] of about a fifth of the trips, at least one; every fifth row of a single trip."""
    numbers = np.unique(trip)
    if len(numbers) == 1:
        return np.asarray(np.arange(len(trip)) % round(1 / HELD_SHARE) == 0)
    count = max(1, round(HELD_SHARE * len(numbers)))
    held: BoolArray = np.isin(trip, rng.choice(numbers, size=count, replace=False))
    return held


def typical_rows(trip: IntArray, voltage_v: FloatArray, rng: np.random.Generator) -> IntArray:
    """Numbers of rows of up to TYPICAL_TRIPS trips, each thinned to TRIP_POINTS."""
    numbers = np.unique(trip)
    if len(numbers) > TYPICAL_TRIPS:
        numbers = np.sort(rng.choice(numbers, size=TYPICAL_TRIPS, replace=False))
    return np.concatenate(
        [_thinned(np.flatnonzero(trip == number), voltage_v) for number in numbers]
    )


def _thinned(rows: IntArray, voltage_v: FloatArray) -> IntArray:
    return rows[chosen_rows(voltage_v[rows], TRIP_POINTS)]
