"""Split a training table by whole trips, so that an error is measured on trips never seen.

Pure and seeded. Must never put rows of one trip on both sides, except where there is one trip only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

HELD_SHARE: Final = 0.2


def held_out_rows(trip: IntArray, rng: np.random.Generator) -> BoolArray:
    """Mask [n] of about a fifth of the trips, at least one; every fifth row of a single trip."""
    numbers = np.unique(trip)
    if len(numbers) == 1:
        return np.asarray(np.arange(len(trip)) % round(1 / HELD_SHARE) == 0)
    count = max(1, round(HELD_SHARE * len(numbers)))
    held: BoolArray = np.isin(trip, rng.choice(numbers, size=count, replace=False))
    return held
