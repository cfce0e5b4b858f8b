"""What trips can teach of a set of parameters: Fisher information, and what it leaves unknown.

Pure. An influential parameter need not be identifiable: when two move the voltage alike, the data
fix a combination of them and nothing else. Must never rank: influence is told by the Sobol indices.

F = Jᵀ R⁻¹ J over the points of a trip, J the change in voltage per prior standard deviation and R
as the filter has it, noise and a discrepancy that is correlated along the trip (S. M. Kay,
"Fundamentals of Statistical Signal Processing: Estimation Theory", 1993, chapters 3 and 12). The
covariance that a linear filter with this prior would end with is (1 + F)⁻¹, in prior standard
deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

# Voltages come in float32: beyond this an eigenvalue is their rounding, and the ratio infinite.
LARGEST_CONDITION: Final = 1e9
MANY_TRIPS: Final = 10
# Members of a combination that are less than this share of its largest are not worth their name.
NAMED_SHARE: Final = 0.3
PAIR: Final = 2
TENTH: Final = 0.1


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Of k parameters after some trips, in prior standard deviations.

    std [k] and correlation [k, k] are posterior; eigenvalues [k] are those of F, ascending, and
    `condition` is their ratio; `weakest` [k] is the direction of the smallest, of length 1.
    `collinearity` is the condition number of F with every parameter scaled to the same information:
    it tells of combinations alone, neither of influence nor of priors (Belsley, Kuh, Welsch,
    "Regression Diagnostics", 1980, chapter 3).
    """

    std: FloatArray
    correlation: FloatArray
    eigenvalues: FloatArray
    condition: float
    collinearity: float
    weakest: FloatArray


def trip_information(
    effects: FloatArray, trip: IntArray, whitened: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """F of each trip [T, C, C] from effects [n, C]; `whitened`: R^(-1/2) times a trip's [m, C]."""
    by_trip = [whitened(effects[trip == number]) for number in np.unique(trip)]
    return np.stack([rows.T @ rows for rows in by_trip])


def typical_trip(information: FloatArray) -> int:
    """The trip that teaches a median amount: −log determinant of the posterior covariance."""
    _, gain = np.linalg.slogdet(np.eye(information.shape[1]) + information)
    return int(np.argsort(gain, kind="stable")[len(gain) // 2])


def after_many(information: FloatArray) -> FloatArray:
    """F [C, C] of MANY_TRIPS trips as different from each other as the given ones [T, C, C]."""
    return np.asarray(MANY_TRIPS * information.mean(axis=0))


def knowledge(information: FloatArray, members: Sequence[int]) -> Knowledge:
    """What F [C, C] says of these candidates, estimated together while all others are known."""
    own = information[np.ix_(members, members)]
    eigenvalues, directions = np.linalg.eigh(own)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    size = np.sqrt(np.maximum(np.diagonal(own), np.finfo(float).tiny))
    posterior = (directions / (1.0 + eigenvalues)) @ directions.T
    std = np.sqrt(np.diagonal(posterior))
    return Knowledge(
        std=std,
        correlation=np.clip(posterior / np.outer(std, std), -1.0, 1.0),
        eigenvalues=eigenvalues,
        condition=_condition(eigenvalues),
        collinearity=_condition(np.linalg.eigvalsh(own / np.outer(size, size))),
        weakest=directions[:, 0],
    )


def _condition(eigenvalues: FloatArray) -> float:
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    return largest / smallest if smallest * LARGEST_CONDITION > largest else LARGEST_CONDITION


def pairwise_correlation(information: FloatArray, members: Sequence[int]) -> FloatArray:
    """Posterior correlation [k, k] of each two of these candidates when those two are estimated."""
    own = information[np.ix_(members, members)]
    precision = 1.0 + np.diagonal(own)
    # The inverse of a 2 × 2 matrix turns the sign of what stands off the diagonal.
    correlation = -own / np.sqrt(np.outer(precision, precision))
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def weakest_in_words(names: Sequence[str], found: Knowledge) -> str:
    """Which combination the data say least of, and how much of its prior doubt is left."""
    left = f"{percent(1.0 / (1.0 + found.eigenvalues[0]) ** 0.5)} of its prior doubt"
    size = np.abs(found.weakest)
    named = [i for i in np.argsort(-size, kind="stable") if size[i] >= NAMED_SHARE * size.max()]
    if len(named) == 1:
        return f"least is learnt of {names[named[0]]}: {left} is left"
    parts = " and ".join(names[i] for i in named)
    if len(named) > PAIR:
        return f"{parts} trade off: of one combination of them {left} is left"
    same = found.weakest[named[0]] * found.weakest[named[1]] > 0
    fixed, open_ = ("difference", "sum") if same else ("sum", "difference")
    return f"{parts} trade off: the data fix their {fixed}, of their {open_} {left} is left"


def percent(share: float) -> str:
    """Two digits of a share, as 0.71 % or 98 %."""
    return f"{100 * share:.{0 if share >= TENTH else 1 if share >= TENTH**2 else 2}f} %"
