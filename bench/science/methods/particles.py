"""A bootstrap particle filter over (theta, rate).

N. J. Gordon, D. J. Salmond, A. F. M. Smith, "Novel approach to nonlinear/non-Gaussian Bayesian
state estimation", IEE Proceedings F 140, 1993, with its roughening: jitter of K range N^(-1/n);
systematic resampling after G. Kitagawa, J. Computational and Graphical Statistics 5, 1996. Pure:
the draws follow from the seed and the number of updates before. Must never look at a trace twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Breach, Method, Update
from bench.science.methods.common_ground import (
    active_of,
    is_accepted,
    packed,
    transition,
    unpacked,
    whitening,
)
from common.calibration import Estimate
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]
LogLikelihood = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Cloud:
    """Equally weighted particles [N, n] at `odometer`, and how often they were drawn."""

    particles: FloatArray
    odometer: float
    draws: int


def particle_filter(
    model: VoltageModel, manifest: Manifest, count: int, roughening: float, seed: int = 0
) -> Method[Cloud]:
    """The method as the loop takes it: `count` particles."""
    active, parameters = active_of(manifest), len(manifest.parameters)

    def begin(prior: Estimate) -> Cloud:
        x, P = packed(prior, active)
        draws = np.random.default_rng([seed, 0]).normal(size=(count, len(x)))
        return Cloud(x + draws @ np.linalg.cholesky(P).T, prior.odometer, 1)

    def estimate(cloud: Cloud) -> Estimate:
        P = np.cov(cloud.particles.T)
        return unpacked(cloud.particles.mean(axis=0), P, active, parameters, cloud.odometer)

    def one(breach: Breach[Cloud]) -> Update[Cloud] | None:
        cloud, trace = breach.state, breach.trace
        before = estimate(cloud)
        rng = np.random.default_rng([seed, cloud.draws])
        ds = max(breach.odometer - cloud.odometer, 0.0)
        all_F, all_Q = transition(manifest, before.rate, ds)
        F, Q = all_F[np.ix_(active, active)], all_Q[np.ix_(active, active)]
        moved = cloud.particles @ F.T + rng.normal(size=cloud.particles.shape) @ _root(Q).T
        W = whitening(len(trace.time_s), manifest)

        def log_likelihood(particles: FloatArray) -> FloatArray:
            images = model.predict_crossed(trace.features[None], particles[None, :, :parameters])[0]
            log: FloatArray = -0.5 * (((images - trace.voltage_v) @ W.T) ** 2).sum(axis=1)
            return log

        chosen = resampled(moved, log_likelihood, roughening, rng)
        found = Cloud(chosen, cloud.odometer + ds, cloud.draws + 1)
        accepted = is_accepted(estimate(found), before, trace, model, manifest)
        return Update(found) if accepted else None

    def update(breaches: Sequence[Breach[Cloud]]) -> list[Update[Cloud] | None]:
        return [one(breach) for breach in breaches]

    return Method("particle filter", manifest, begin, estimate, update)


def resampled(
    particles: FloatArray,
    log_likelihood: LogLikelihood,
    roughening: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Equally weighted particles [N, n] after a measurement, roughened."""
    log_weights = log_likelihood(particles)
    weights = np.exp(log_weights - log_weights.max())
    chosen = particles[systematic(weights / weights.sum(), rng)]
    count, states = chosen.shape
    width = roughening * np.ptp(chosen, axis=0) * count ** (-1.0 / states)
    jittered: FloatArray = chosen + width * rng.normal(size=chosen.shape)
    return jittered


def systematic(weights: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Which particles [N] survive: one uniform draw, and N equal steps through the weights."""
    positions = (rng.uniform() + np.arange(len(weights))) / len(weights)
    found: npt.NDArray[np.intp] = np.searchsorted(np.cumsum(weights), positions)
    return np.minimum(found, len(weights) - 1)


def _root(Q: FloatArray) -> FloatArray:
    """A square root of a semidefinite Q."""
    values, vectors = np.linalg.eigh(Q)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
