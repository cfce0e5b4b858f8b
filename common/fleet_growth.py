"""How fast the fleet's mean ageing rate grows with the battery's age.

Pure. Must never call growth what may be chance.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NEAREST: Final = 5  # nodes that a local line is laid through
SURE: Final = 2.0  # standard deviations from zero of a rate whose logarithm is taken
LEAST_ROOM: Final = 3  # nodes: two give a line without a doubt


def growth_of(ages: FloatArray, rate: FloatArray, std: FloatArray) -> FloatArray:
    """d log|rate| / d age at each node, [K, P], from mean rates and their errors [K, P]."""
    columns = [
        [_local(ages, rate[:, p], std[:, p], node) for node in range(len(ages))]
        for p in range(rate.shape[1])
    ]
    return np.array(columns).T


def _local(ages: FloatArray, rate: FloatArray, std: FloatArray, node: int) -> float:
    """The slope of a weighted line through log|rate| of the nearest nodes; never below 0.

    Local lines: Cleveland, "Robust locally weighted regression", J. Am. Stat. Assoc. 74, 1979.
    Shrunk by its own uncertainty: the positive part of James and Stein, "Estimation with quadratic
    loss", 1961.
    """
    near = np.argsort(np.abs(ages - ages[node]), kind="stable")[:NEAREST]
    sure = near[(np.abs(rate[near]) > SURE * std[near]) & (rate[near] * rate[node] > 0)]
    if node not in sure or len(sure) < LEAST_ROOM:
        return 0.0
    relative = np.maximum(std[sure] / np.abs(rate[sure]), 1e-3)
    weight = 1.0 / np.square(relative)
    s = ages[sure] - weight @ ages[sure] / weight.sum()
    spread = float(weight @ np.square(s))
    slope = float(weight @ (s * np.log(np.abs(rate[sure]))) / spread)
    return slope * max(0.0, 1.0 - 1.0 / (spread * slope**2)) if slope > 0 else 0.0
