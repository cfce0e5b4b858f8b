"""What a fitted trip says of the battery: what the trip alone brings comes on top, and off again.

Pure. Must never look at a measurement: fits come from common.fitting.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.bundle_filter import BundleFilter
from common.filter_values import Fit, Prior

FloatArray = npt.NDArray[np.float64]


def of_the_trip(before: Prior, filter_: BundleFilter) -> Prior:
    """The prior of a trip's parameters from the battery's: the same where trips bring nothing."""
    layout = filter_.layout
    if not layout.has_trip_spread:
        return before
    index, P = np.arange(layout.count), before.P.copy()
    P[:, index, index] += layout.trip_variances
    return filter_.prior(before.x, P)


def of_the_battery(before: Prior, trip: Prior, fit: Fit) -> tuple[FloatArray, FloatArray]:
    """From the posterior of the trip's parameters to that of the battery's, [B, n] and [B, n, n].

    With T = P + J and G = P T^-1: x+ = x + G (x_t - x) and P+ = G J + G P_t G' (the conditional
    mean of x given x_t = x + e, e ~ N(0, J)); G J is the parallel sum of P and J, so both terms
    are positive semidefinite.
    """
    if before is trip:
        return fit.x, fit.P
    G = before.P @ trip.information
    shift: FloatArray = (G @ (fit.x - before.x)[..., None])[..., 0]
    P = G @ (trip.P - before.P) + G @ fit.P @ G.swapaxes(-1, -2)
    return before.x + shift, 0.5 * (P + P.swapaxes(-1, -2))
