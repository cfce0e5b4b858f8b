"""A smooth map between a parameter inside its bounds and a free number that a filter may move.

theta = lower + w (softplus((u - lower) / w) - softplus((u - upper) / w)), w a small share of the
interval: away from the bounds theta is u to the last digit, at a bound it bends and stays inside.
The inverse has a closed form. (Softplus: C. Dugas et al., "Incorporating Second-Order
Functional Knowledge for Better Option Pricing", NIPS 2000.)

Pure. Must never clip: a clipped mean says nothing of where the filter wanted to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WIDTH_SHARE: Final = 0.002  # of the interval, over which the map bends
# Widths beyond a bound at which a free number stops: farther, theta and the bound are one float.
REACH: Final = 12.0
# Widths inside a bound from which on a float cannot tell theta from u.
FAR: Final = 40.0


@dataclass(frozen=True)
class Bounds:
    """The map of P parameters, each [P]: limits, width of the bend, and what follows from them.

    Between `inner_lower` and `inner_upper` a float cannot tell theta from u; beyond `least` and
    `most` it cannot tell theta from the bound.
    """

    lower: FloatArray
    upper: FloatArray
    width: FloatArray
    inner_lower: FloatArray
    inner_upper: FloatArray
    least: FloatArray
    most: FloatArray

    @classmethod
    def between(cls, lower: FloatArray, upper: FloatArray) -> Bounds:
        """The map into [lower, upper]."""
        w = WIDTH_SHARE * (upper - lower)
        inner, beyond = FAR * w, REACH * w
        return cls(lower, upper, w, lower + inner, upper - inner, lower - beyond, upper + beyond)

    def bounded(self, free: FloatArray) -> FloatArray:
        """Parameters [..., P] strictly inside the bounds of free numbers [..., P]."""
        inside = self._far_inside(free)
        if inside.all():
            return free
        u, w = self.reachable(free), self.width
        theta: FloatArray = self.lower + w * (
            np.logaddexp(0.0, (u - self.lower) / w) - np.logaddexp(0.0, (u - self.upper) / w)
        )
        return np.where(inside, free, theta)

    def free(self, theta: FloatArray) -> FloatArray:
        """The inverse of `bounded`; what is on or beyond a bound comes from the end of the reach.

        With t = exp((u - lower) / w) and z = (theta - lower) / w: e^z = (1 + t) / (1 + t e^-h), h
        the interval over w, so t = (e^z - 1) / (1 - e^(z - h)).
        """
        inside = self._far_inside(theta)
        if inside.all():
            return theta
        z, h = (theta - self.lower) / self.width, 1.0 / WIDTH_SHARE
        edge = np.exp(-REACH)
        z = np.clip(z, edge, h - edge)
        u: FloatArray = self.lower + self.width * (
            z + np.log1p(-np.exp(-z)) - np.log1p(-np.exp(z - h))
        )
        return np.where(inside, theta, self.reachable(u))

    def slope(self, u: FloatArray) -> FloatArray:
        """d theta / d u at free numbers u [..., P]: 1 inside the bounds, towards 0 beyond them."""
        inside = self._far_inside(u)
        if inside.all():
            return np.ones_like(u)
        w = self.width
        found: FloatArray = _sigmoid((u - self.lower) / w) - _sigmoid((u - self.upper) / w)
        return np.where(inside, 1.0, found)

    def reachable(self, u: FloatArray) -> FloatArray:
        """Free numbers no farther beyond the bounds than floats can tell."""
        return np.minimum(np.maximum(u, self.least), self.most)

    def _far_inside(self, numbers: FloatArray) -> npt.NDArray[np.bool_]:
        """Each for itself: a vehicle at a bound must not change another's last bits."""
        inside: npt.NDArray[np.bool_] = (numbers > self.inner_lower) & (numbers < self.inner_upper)
        return inside


def _sigmoid(x: FloatArray) -> FloatArray:
    positive = np.exp(-np.logaddexp(0.0, -x))
    return np.asarray(positive)
