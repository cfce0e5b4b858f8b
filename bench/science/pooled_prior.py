"""What a fleet knows of a vehicle never seen: its siblings' estimates at the same odometer, pooled.

Moments over the other vehicles of theta (their revisions, linear in between) and of its slope over
the next stretch; the covariance is the spread between vehicles, with a floor. Pure. Must never see
the vehicle that it is for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Driven, PriorAt
from common.calibration import Estimate, prior
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]

STRETCH = 0.1  # of the longest odometer seen: the slope of theta over it is the rate
SMALLEST_SHARE = 0.02  # of the manifest's prior standard deviation: siblings are not twins


def pooled_prior(others: Sequence[Driven], manifest: Manifest) -> PriorAt:
    """The prior at an odometer from the estimates that were in force in other vehicles."""
    known = [_revisions(life) for life in others]
    stretch = STRETCH * max(float(odometers[-1]) for odometers, _ in known)
    floor = SMALLEST_SHARE**2 * np.diagonal(prior(manifest).covariance)

    def prior_at(odometer: float) -> Estimate:
        now = np.array([_theta(odometers, thetas, odometer) for odometers, thetas in known])
        later = np.array(
            [_theta(odometers, thetas, odometer + stretch) for odometers, thetas in known]
        )
        states = np.concatenate([now, (later - now) / stretch], axis=1)
        count = now.shape[1]
        spread: FloatArray = np.atleast_2d(np.cov(states.T))
        mean = states.mean(axis=0)
        return Estimate(mean[:count], mean[count:], spread + np.diag(floor), odometer)

    return prior_at


def _revisions(life: Driven) -> tuple[FloatArray, FloatArray]:
    """Odometer [K] and theta [K, P] of every estimate that was in force, each once."""
    distinct = {estimate.odometer: estimate.theta for estimate in life.estimates}
    odometers = np.array(sorted(distinct))
    return odometers, np.array([distinct[odometer] for odometer in odometers])


def _theta(odometers: FloatArray, thetas: FloatArray, at: float) -> FloatArray:
    return np.array([np.interp(at, odometers, column) for column in thetas.T])
