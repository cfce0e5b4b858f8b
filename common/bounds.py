"""A smooth map between a parameter inside its bounds and a free number that a filter may move.

theta = lower + w (softplus((u - lower) / w) - softplus((u - upper) / w)), w a small share of the
interval: away from the bounds theta is u to the last digit, at a bound it bends and stays inside.
The inverse has a closed form. (Softplus: C. Dugas et al., "Incorporating Second-Order
Functional Knowledge for Better Option Pricing", NIPS 2000.)

Pure. Must never clip: a clipped mean says nothing of where the filter wanted to go.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WIDTH_SHARE: Final = 0.002  # of the interval, over which the map bends
# Widths beyond a bound at which a free number stops: farther, theta and the bound are one float.
REACH: Final = 12.0
# Widths inside a bound from which on a float cannot tell theta from u.
FAR: Final = 40.0


def bounded(free: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Parameters [..., P] strictly inside [lower, upper] of free numbers [..., P]."""
    w = WIDTH_SHARE * (upper - lower)
    if (free > lower + FAR * w).all() and (free < upper - FAR * w).all():
        return free
    u = reachable(free, lower, upper)
    theta: FloatArray = lower + w * (
        np.logaddexp(0.0, (u - lower) / w) - np.logaddexp(0.0, (u - upper) / w)
    )
    return theta


def free(theta: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """The inverse of `bounded`; a parameter on or beyond a bound comes from the end of the reach.

    With t = exp((u - lower) / w) and z = (theta - lower) / w: e^z = (1 + t) / (1 + t e^-h), h the
    interval over w, so t = (e^z - 1) / (1 - e^(z - h)).
    """
    w = WIDTH_SHARE * (upper - lower)
    z, h = (theta - lower) / w, 1.0 / WIDTH_SHARE
    edge = np.exp(-REACH)
    z = np.clip(z, edge, h - edge)
    u: FloatArray = lower + w * (z + np.log1p(-np.exp(-z)) - np.log1p(-np.exp(z - h)))
    return reachable(u, lower, upper)


def slope(u: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """d theta / d u at free numbers u [..., P]: 1 inside the bounds, falling to 0 beyond them."""
    w = WIDTH_SHARE * (upper - lower)
    found: FloatArray = _sigmoid((u - lower) / w) - _sigmoid((u - upper) / w)
    return found


def reachable(u: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Free numbers no farther beyond the bounds than floats can tell."""
    beyond = REACH * WIDTH_SHARE * (upper - lower)
    return np.clip(u, lower - beyond, upper + beyond)


def _sigmoid(x: FloatArray) -> FloatArray:
    positive = np.exp(-np.logaddexp(0.0, -x))
    return np.asarray(positive)
