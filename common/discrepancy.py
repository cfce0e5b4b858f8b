"""The errors of one trip that are no surprise: noise, and a discrepancy correlated along the trip.

R = noise^2 I + d^2 C with C_ij = exp(-|i - j| / (share m)) over the m points of a trace (Kennedy
and O'Hagan, "Bayesian calibration of computer models", J. R. Stat. Soc. B 63, 2001: without such
a term a calibration takes a misfit for evidence). C = E L E' is the same for all traces of one
length, so in the coordinates E' R is diagonal for every vehicle, whatever its own d.

Pure. Must never look at a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CACHED_LENGTHS: Final = 64


@dataclass(frozen=True)
class Correlation:
    """`axes` E [m, m] (None: the identity) and `variances` L [m] of the discrepancy along them."""

    axes: FloatArray | None
    variances: FloatArray

    def rotated(self, values: FloatArray) -> FloatArray:
        """Values [..., m] in the coordinates in which R is diagonal."""
        return values if self.axes is None else _each(values, self.axes)

    def rotated_variance(self, variances: FloatArray) -> FloatArray:
        """The diagonal [..., m] there of a diagonal covariance [..., m] here."""
        return variances if self.axes is None else _each(variances, np.square(self.axes))


def _each(values: FloatArray, matrix: FloatArray) -> FloatArray:
    """values @ matrix, one product for each vehicle.

    One for all of them would add up in an order that depends on how many they are, and a vehicle's
    last bits on its company.
    """
    if values.ndim != 2:  # noqa: PLR2004
        return values @ matrix
    product: FloatArray = (values[:, None] @ matrix)[:, 0]
    return product


@lru_cache(maxsize=CACHED_LENGTHS)
def correlation(points: int, share: float) -> Correlation:
    """The correlation of a trace of `points` whose length of correlation is `share` of it."""
    if share == 0.0:
        return Correlation(None, np.ones(points))
    index = np.arange(points)
    C = np.exp(-np.abs(index[:, None] - index) / (share * points))
    variances, axes = np.linalg.eigh(C)
    return Correlation(axes, np.maximum(variances, 0.0))


def point_variance(noise_std_v: float, discrepancy_v: float | FloatArray) -> FloatArray:
    """Variance of one measured point about what the model says: noise and discrepancy."""
    return np.asarray(noise_std_v**2 + np.square(discrepancy_v))


def unbiased_squares(residual: FloatArray, parameters: int) -> FloatArray:
    """Squared residuals [..., m] of a fit, with the share that the fitted parameters took."""
    points = residual.shape[-1]
    squares: FloatArray = np.square(residual) * (points / max(points - parameters, 1))
    return squares
