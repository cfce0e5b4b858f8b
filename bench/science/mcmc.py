"""A posterior by brute force: adaptive Metropolis, several chains of several cases side by side.

H. Haario, E. Saksman, J. Tamminen, "An adaptive Metropolis algorithm", Bernoulli 7, 2001: a random
walk whose covariance is 2.4^2 / n times that of the chain so far, learned during the burn-in and
then kept. Convergence: split R-hat (A. Gelman et al., "Bayesian Data Analysis", 3rd ed., 2013,
section 11.4). Pure and seeded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LogDensity = Callable[[FloatArray], FloatArray]

ADAPT_EVERY = 100
EPSILON = 1e-9  # relative to the first covariance: a chain that has not moved keeps its dimensions


def adaptive_metropolis(
    log_density: LogDensity,
    start: FloatArray,
    covariance: FloatArray,
    steps: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Samples [steps // 2, B, n] of B chains after a burn-in of half the steps.

    log_density maps [B, n] to [B]; start [B, n]; covariance [B, n, n] of the first proposals.
    """
    chains, n = start.shape
    factor = 2.4**2 / n
    x, density = start, log_density(start)
    root = np.linalg.cholesky(factor * covariance)
    history = np.empty((steps, chains, n))
    for step in range(steps):
        if step and step <= steps // 2 and step % ADAPT_EVERY == 0:
            root = np.linalg.cholesky(factor * _adapted(history[step // 4 : step], covariance))
        proposed = x + (root @ rng.normal(size=(chains, n, 1)))[..., 0]
        new = log_density(proposed)
        accepted = np.log(rng.uniform(size=chains)) < new - density
        x = np.where(accepted[:, None], proposed, x)
        density = np.where(accepted, new, density)
        history[step] = x
    return history[steps // 2 :]


def split_r_hat(samples: FloatArray) -> float:
    """The largest over the states, of samples [steps, chains, n]; 1 where all halves agree."""
    half = len(samples) // 2
    parts = np.concatenate([samples[:half], samples[half : 2 * half]], axis=1)
    within = parts.var(axis=0, ddof=1).mean(axis=0)
    between = parts.mean(axis=0).var(axis=0, ddof=1)
    return float(np.sqrt((half - 1) / half + between / within).max())


def _adapted(history: FloatArray, first: FloatArray) -> FloatArray:
    centred = history - history.mean(axis=0)
    found = np.einsum("sbi,sbj->bij", centred, centred) / (len(history) - 1)
    adapted: FloatArray = found + EPSILON * first
    return adapted
