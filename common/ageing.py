"""How parameters age along the odometer: transition matrix and process noise over a distance.

d theta = rate ds + dw, d rate = growth rate ds + dv: ageing that speeds up does so in proportion to
itself, as the growth of a crack or of a film does; growth 0 is the constant-velocity model of
Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001,
section 6.2.2. The noise of the rate has a floor and a part in proportion to the rate (geometric
Brownian motion, linearised), so that an old battery, whose rate is large, may surprise more.

Pure. Must never know where the bounds of a parameter are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]

# A rate that grew e^3 = 20-fold between two updates is beyond what growth was learned on.
MAX_EXPONENT: Final = 3.0
_TINY: Final = 1e-300
_NODES, _WHOLE = np.polynomial.legendre.leggauss(8)  # type: ignore[no-untyped-call]
_PLACES, _WEIGHTS = np.append(0.5 * (1.0 + _NODES), 1.0), 0.5 * _WHOLE  # of a distance of one


@dataclass(frozen=True)
class AgeingLaw:
    """Densities per odometer unit, each [P].

    Variances of theta and of the rate; `volatility`, the rate's relative standard deviation per
    square root of the unit; `growth` of the rate per unit.
    """

    process_noise: FloatArray
    rate_process_noise: FloatArray
    volatility: FloatArray
    growth: FloatArray


def law_of(manifest: Manifest, growth: FloatArray | None = None) -> AgeingLaw:
    """The manifest's law, with another `growth` [P] where one was learned."""
    parameters = manifest.parameters
    rated = np.array([p.rate_prior_std > 0 for p in parameters])
    declared = np.array([p.rate_growth for p in parameters])
    return AgeingLaw(
        process_noise=np.array([p.process_noise for p in parameters]),
        rate_process_noise=np.array([p.rate_process_noise for p in parameters]) * rated,
        volatility=np.array([p.rate_volatility for p in parameters]) * rated,
        growth=declared if growth is None else growth,
    )


def transition(
    law: AgeingLaw, rate: FloatArray, ds: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """F and Q [..., 2P, 2P] over (theta, rate) for distances ds > 0 [...], rates [..., P] there.

    Exactly integrated: with g = (e^(growth t) - 1) / growth and e = e^(growth t), Q is the integral
    of q (g^2, g e, e^2) over the distance t to its end, by Gauss-Legendre quadrature (exact for
    growth 0, to 1e-9 up to MAX_EXPONENT).
    """
    count = rate.shape[-1]
    step = _step(law, rate, ds)
    Q = np.zeros((*rate.shape[:-1], 2 * count, 2 * count))
    F = Q + np.eye(2 * count)
    theta, rates = np.arange(count), np.arange(count, 2 * count)
    F[..., theta, rates] = step.drift
    F[..., rates, rates] = step.factor
    Q[..., theta, theta] = step.theta_variance
    Q[..., theta, rates] = Q[..., rates, theta] = step.shared
    Q[..., rates, rates] = step.rate_variance
    return F, Q


def wandered(law: AgeingLaw, states: FloatArray, ds: float, normals: FloatArray) -> FloatArray:
    """States (theta, rate) [N, 2P] after ds, each on a path of its own by its normals [N, 2P].

    The same F and Q as `transition`; the noise of each path is that of its own rate.
    """
    count = states.shape[1] // 2
    theta, rate = states[:, :count], states[:, count:]
    step = _step(law, rate, ds)
    # The root of each parameter's own 2 x 2 of Q, the rate first.
    rate_std = np.sqrt(step.rate_variance)
    share = step.shared / np.where(rate_std > 0, rate_std, 1.0)
    rest = np.sqrt(np.maximum(step.theta_variance - share**2, 0.0))
    of_rate, of_theta = normals[:, count:], normals[:, :count]
    return np.concatenate(
        [
            theta + step.drift * rate + share * of_rate + rest * of_theta,
            step.factor * rate + rate_std * of_rate,
        ],
        axis=1,
    )


@dataclass(frozen=True)
class _Step:
    """F and Q of each parameter alone: theta += drift rate, rate *= factor, and the noise."""

    drift: FloatArray
    factor: FloatArray
    theta_variance: FloatArray
    shared: FloatArray
    rate_variance: FloatArray


def _step(law: AgeingLaw, rate: FloatArray, ds: float | FloatArray) -> _Step:
    """For rates [..., P] at the start of ds [...]; one distance for all, or one for each.

    The nodes of the quadrature and, last, the end of the distance are one array.
    """
    length = np.asarray(ds)[..., None]
    growth = np.minimum(law.growth, MAX_EXPONENT / np.maximum(length, _TINY))
    along = (-1, *([1] * rate.ndim))
    t = length * _PLACES.reshape(along)
    exponent = growth * t
    e, g = np.exp(exponent), integrated(exponent, t)
    factor, drift, e, g = e[-1], g[-1], e[:-1], g[:-1]
    q = law.rate_process_noise + np.square(law.volatility * rate * (factor / e))
    weighted = q * (length * _WEIGHTS.reshape(along))
    return _Step(
        drift=drift,
        factor=factor,
        theta_variance=law.process_noise * length + (weighted * g * g).sum(axis=0),
        shared=(weighted * g * e).sum(axis=0),
        rate_variance=(weighted * e * e).sum(axis=0),
    )


def integrated(exponent: FloatArray, t: FloatArray) -> FloatArray:
    """(e^(growth t) - 1) / growth at exponents growth t; t where growth is 0."""
    still = exponent == 0.0
    integrated: FloatArray = t * np.where(
        still, 1.0, np.expm1(exponent) / np.where(still, 1.0, exponent)
    )
    return integrated
