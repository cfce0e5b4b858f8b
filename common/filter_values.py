"""What goes into the filter of a bundle and comes out of it, for many vehicles at once.

Pure values, in free numbers (common.bounds). Must never compute anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.discrepancy import Correlation

FloatArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """Sigma-point spread, passes and robustness.

    `passes` 1 is the plain unscented filter; each further pass linearises again around the
    posterior. `huber` is where a residual, in standard deviations, begins to count less.
    """

    alpha: float = 1.0
    beta: float = 2.0
    kappa: float = 0.0
    passes: int = 6
    huber: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """Traces of B vehicles of equal length: features [B, m, F], voltages z [B, m].

    `spread` [B, 1] is the variance of a point (noise and discrepancy), `r` [B, m] the variances in
    the coordinates of `correlation`. `share` [B, m] of its trip is what a point stands for: a
    trace has more of them where the voltage moves.
    """

    features: FloatArray
    z: FloatArray
    share: FloatArray
    spread: FloatArray
    r: FloatArray
    correlation: Correlation

    def take(self, index: Index) -> Evidence:
        """That of these vehicles."""
        return Evidence(
            self.features[index],
            self.z[index],
            self.share[index],
            self.spread[index],
            self.r[index],
            self.correlation,
        )


@dataclass(frozen=True)
class Prior:
    """x [B, n], P [B, n, n], its lower triangular root, and its inverse."""

    x: FloatArray
    P: FloatArray
    root: FloatArray
    information: FloatArray

    def take(self, index: Index) -> Prior:
        """Those of these vehicles."""
        return Prior(self.x[index], self.P[index], self.root[index], self.information[index])


@dataclass(frozen=True)
class Fit:
    """x [B, n] and P [B, n, n], and the voltage there, `image` [B, m]."""

    x: FloatArray
    P: FloatArray
    image: FloatArray

    def take(self, index: Index) -> Fit:
        """Those of these vehicles."""
        return Fit(self.x[index], self.P[index], self.image[index])
