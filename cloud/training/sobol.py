"""Sobol indices of any function with their confidence intervals, from as many samples as they need.

Pure apart from the function that is studied. The samples double until the intervals are narrow
enough or a limit is reached. Must never hold all evaluations: each batch adds to sums, and the
intervals come from sums in which every sample counts at random (Poisson bootstrap).

Two random points A, B and hybrids of them, A with some inputs from B and the reverse, give

- first order, mean(B (AB − A)) / variance: Saltelli et al., Comput. Phys. Commun. 181 (2010), 259;
- total, mean((A − AB)²) / 2 / variance: Jansen, Comput. Phys. Commun. 117 (1999), 35;
- second order, mean(BA_i AB_j − A B) / variance − first_i − first_j: Saltelli, Comput. Phys.
  Commun. 145 (2002), 280.

A and B may change places: each index is the mean of both ways. SALib has the same estimators, and
its intervals would take most of a minute (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from cloud.training.errors import OptionError

FloatArray = npt.NDArray[np.float64]

FEWEST: Final = 256
MIN_SAMPLES: Final = 2
RESAMPLES: Final = 200
SIGMAS_95: Final = 1.96
# The selection is decided by differences between the largest indices: a fortieth of the largest
# is less than any difference that should decide; below half a per cent of the variance no index
# matters.
RELATIVE_HALF_WIDTH: Final = 0.025
SMALLEST_HALF_WIDTH: Final = 0.005
BATCH: Final = 4096  # the model's largest

Model = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class SobolSettings:
    """Base samples at most (a power of two), and the seed of the sequence and the resampling."""

    samples: int = 65_536
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < MIN_SAMPLES or self.samples & (self.samples - 1):
            remedy = "Sobol sequences are balanced for 128, 256, 512, 1024 ... samples."
            raise OptionError("samples", f"{self.samples} is no power of two", remedy)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Values and the half widths of their 95 % intervals, of the same shape."""

    value: FloatArray
    ci: FloatArray


@dataclass(frozen=True, eq=False)
class Indices:
    """Indices of D inputs, then of G groups of them: first and total [D + G], pairs [D, D].

    Pairs stand above the diagonal. `settled`: the intervals became narrow enough.
    """

    samples: int
    settled: bool
    first: Estimate
    total: Estimate
    pairs: Estimate


def sobol_indices(
    model: Model, bounds: FloatArray, groups: Sequence[Sequence[int]], settings: SobolSettings
) -> Indices:
    """Study `model` ([n, D] → [n]) over independent, uniform inputs within `bounds` [D, 2].

    `groups` are numbers of inputs that vary together as one. A model that never varies has zeros.
    """
    study = _Study(model, bounds, groups, settings.seed)
    study.add(min(FEWEST, settings.samples))
    while not (found := study.indices()).settled and study.samples < settings.samples:
        study.add(study.samples)
    return found


class _Study:
    """Sums over the samples so far: one row as they are, RESAMPLES rows weighed at random."""

    def __init__(
        self, model: Model, bounds: FloatArray, groups: Sequence[Sequence[int]], seed: int
    ) -> None:
        self._model = model
        self._low, self._width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self._inputs = len(bounds)
        self._sets = [*([i] for i in range(self._inputs)), *(list(group) for group in groups)]
        self._upper = np.triu_indices(self._inputs, k=1)
        self._sequence = qmc.Sobol(2 * self._inputs, seed=np.random.default_rng(seed))
        self._random = np.random.default_rng([seed, 1])
        self._centre: float | None = None
        self._scale = 1.0
        columns = 2 + 2 * len(self._sets) + len(self._upper[0])
        self._sums = np.zeros((1 + RESAMPLES, columns))
        self._weight = np.zeros((1 + RESAMPLES, 1))
        self.samples = 0

    def add(self, samples: int) -> None:
        for start in range(0, samples, BATCH):
            n = min(BATCH, samples - start)
            counts = self._random.poisson(1.0, (RESAMPLES, n))
            weights = np.concatenate([np.ones((1, n)), counts])
            self._sums += weights @ self._terms(n)
            self._weight += weights.sum(axis=1, keepdims=True)
        self.samples += samples

    def _terms(self, n: int) -> FloatArray:
        """What the indices are means of, per sample [n, columns]."""
        points = self._sequence.random(n).reshape(n, 2, self._inputs)
        a, b = np.moveaxis(self._low + self._width * points, 1, 0)
        y_a, y_b = self._normalised(self._model(a)), self._normalised(self._model(b))
        y_ab = np.stack([self._hybrid(a, b, members) for members in self._sets], axis=1)
        y_ba = np.stack([self._hybrid(b, a, members) for members in self._sets], axis=1)
        y_a, y_b = y_a[:, None], y_b[:, None]
        first = (y_b * (y_ab - y_a) + y_a * (y_ba - y_b)) / 2
        total = ((y_a - y_ab) ** 2 + (y_b - y_ba) ** 2) / 4
        i, j = self._upper
        pairs = (y_ba[:, i] * y_ab[:, j] + y_ba[:, j] * y_ab[:, i]) / 2 - y_a * y_b
        moments = [(y_a + y_b) / 2, (y_a**2 + y_b**2) / 2]
        return np.concatenate([*moments, first, total, pairs], axis=1)

    def _hybrid(self, base: FloatArray, other: FloatArray, members: list[int]) -> FloatArray:
        mixed = base.copy()
        mixed[:, members] = other[:, members]
        return self._normalised(self._model(mixed))

    def _normalised(self, y: FloatArray) -> FloatArray:
        """Centred and scaled by the first batch: the indices do not change, their noise shrinks."""
        if self._centre is None:
            self._centre, self._scale = float(y.mean()), float(y.std()) or 1.0
        return (y - self._centre) / self._scale

    def indices(self) -> Indices:
        means = self._sums / np.maximum(self._weight, 1.0)
        variance = means[:, 1:2] - means[:, :1] ** 2
        shares = means[:, 2:] / np.where(variance > 0, variance, 1.0)
        sets = len(self._sets)
        first, total, both = np.split(shares, [sets, 2 * sets], axis=1)
        i, j = self._upper
        found = _estimate(total)
        singles = found.value[: self._inputs].max()
        allowed = max(RELATIVE_HALF_WIDTH * float(singles), SMALLEST_HALF_WIDTH)
        return Indices(
            samples=self.samples,
            settled=bool(found.ci[: self._inputs].max() <= allowed),
            first=_estimate(first),
            total=found,
            pairs=self._square(_estimate(both - first[:, i] - first[:, j])),
        )

    def _square(self, pairs: Estimate) -> Estimate:
        value, ci = np.zeros((2, self._inputs, self._inputs))
        value[self._upper], ci[self._upper] = pairs.value, pairs.ci
        return Estimate(value, ci)


def _estimate(rows: FloatArray) -> Estimate:
    """The first row is the estimate, the others are resampled."""
    return Estimate(rows[0], SIGMAS_95 * rows[1:].std(axis=0, ddof=1))
