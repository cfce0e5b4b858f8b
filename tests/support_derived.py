"""What the tests of derived quantities share: the aged bundle's closed form, and certain estimates.

At the reference load the aged bundle predicts 3.5 - 0.6 tanh((gain d - 200) / 100) + offset volts
after d km, so the cut-off of 3.1 V is met at a distance that can be written down.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from common import calibration
from common.bundle import Bundle
from common.estimate import Estimate
from common.manifest import Parameter
from common.sampling import Interval

FloatArray = npt.NDArray[np.float64]

CUTOFF_V = 3.1
Z95 = NormalDist().inv_cdf(0.975)


def crossing_km(
    gain: FloatArray | float, offset_v: FloatArray | float = 0.0, cutoff_v: float = CUTOFF_V
) -> FloatArray:
    """Where the voltage meets the cut-off."""
    share = (3.5 + np.asarray(offset_v) - cutoff_v) / 0.6
    found: FloatArray = (200 + 100 * np.arctanh(share)) / np.asarray(gain)
    return found


def parameters(
    process_noise: float = 0.0, rate_process_noise: float = 0.0, **of_gain: float
) -> tuple[Parameter, Parameter]:
    """A gain that ages with the given noise, and an offset."""
    noise = (process_noise, 1e-6, rate_process_noise)
    return (
        Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0, *noise, **of_gain),
        Parameter("offset", "V", 0.0, 0.05, -0.5, 0.5),
    )


def estimate_with(
    bundle: Bundle,
    gain: float = 1.0,
    *,
    rate: float = 0.0,
    stds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    odometer: float = 0.0,
) -> Estimate:
    """An estimate of (gain, offset 0) and rates, with independent standard deviations."""
    return replace(
        calibration.prior(bundle.manifest),
        theta=np.array([gain, 0.0]),
        rate=np.array([rate, 0.0]),
        covariance=np.diag(np.square(stds)),
        odometer=odometer,
    )


def number(found: float | None) -> float:
    """A quantity that must be known."""
    assert found is not None
    return found


def share_inside(found: Interval, truths: FloatArray) -> float:
    """Which share of the truths the interval holds."""
    low, high = number(found.low), number(found.high)
    return float(((truths >= low) & (truths <= high)).mean())


def is_binomial(found: float, of: int, share: float, slack: float = 0.005) -> bool:
    """Whether a share is what `of` draws with this probability give, within 3.5 sigma and slack.

    The slack is for the interval's own ends, which stand on a thousand samples.
    """
    sigma = (share * (1 - share) / of) ** 0.5
    return bool(abs(found - share) <= 3.5 * sigma + slack)
