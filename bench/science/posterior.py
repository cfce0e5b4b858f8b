"""The distance of the filter's posterior from a long Markov chain on the same data.

Same prior, same Gaussian likelihood with the filter's own R; Huber weights off, for they are
another likelihood (the figures as shipped stand beside). Pure but for the model call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Driven, Trip
from bench.science.mcmc import adaptive_metropolis, split_r_hat
from bench.science.methods.common_ground import active_of, measurement_variance, packed
from bench.science.spread import Figures
from common.calibration import Estimate, Settings, calibrate, extrapolate
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
# (trace, manifest) -> covariance of its residuals [m, m]: the seam for a correlated discrepancy.
ResidualCovariance = Callable[[TraceArrays, Manifest], FloatArray]

GAUSSIAN = Settings(huber=1e9)
CHAINS = 4
DISPERSION = 2.0  # starts are drawn from the filter's posterior, this much wider
CONVERGED_BELOW = 1.01


@dataclass(frozen=True)
class PosteriorCase:
    """A breach with the prior at its odometer."""

    prior: Estimate
    trace: TraceArrays


def independent_residuals(trace: TraceArrays, manifest: Manifest) -> FloatArray:
    """The filter's R: a diagonal."""
    points = len(trace.time_s)
    return measurement_variance(points, manifest, Settings()) * np.eye(points)


def pick_cases(
    life: Driven, trips: Sequence[Trip], manifest: Manifest, count: int
) -> list[PosteriorCase]:
    """Updates spread over the life, the first among them."""
    updates = np.flatnonzero(life.updated)
    chosen = np.unique(np.linspace(0, len(updates) - 1, count).round().astype(int))
    return [
        PosteriorCase(
            extrapolate(life.estimates[trip], manifest, trips[trip].odometer), trips[trip].trace
        )
        for trip in (updates[chosen].tolist() if len(updates) else [])
    ]


def posterior_figures(
    cases: Sequence[PosteriorCase],
    model: VoltageModel,
    manifest: Manifest,
    steps: int,
    seed: int,
    residual_covariance: ResidualCovariance = independent_residuals,
) -> list[Figures]:
    """Each converged case: mean distance in the chain's deviations, ratio of widths, R-hat."""
    found = []
    for number, case in enumerate(cases):
        (ours,) = _filtered(case, model, manifest, GAUSSIAN)
        (shipped,) = _filtered(case, model, manifest, Settings())
        density = log_posterior(case, model, manifest, residual_covariance(case.trace, manifest))
        rng = np.random.default_rng([seed, number])
        samples = chains(ours, density, active_of(manifest), steps, rng)
        flat = samples.reshape(-1, samples.shape[-1])
        active = active_of(manifest)
        figures = _distance(flat, *packed(ours, active))
        figures["shipped_mean_distance"] = _distance(flat, *packed(shipped, active))[
            "mean_distance"
        ]
        found.append({**figures, "r_hat": split_r_hat(samples)})
    return found


def chains(
    around: Estimate,
    log_density: Callable[[FloatArray], FloatArray],
    active: npt.NDArray[np.intp],
    steps: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Samples [steps // 2, CHAINS, n] in the units of the states, sampled in whitened ones."""
    x, P = packed(around, active)
    root = np.linalg.cholesky(P)
    start = DISPERSION * rng.normal(size=(CHAINS, len(x)))
    identity = np.tile(np.eye(len(x)), (CHAINS, 1, 1))
    samples = adaptive_metropolis(
        lambda u: log_density(x + u @ root.T), start, identity, steps, rng
    )
    return x + samples @ root.T


def log_posterior(
    case: PosteriorCase, model: VoltageModel, manifest: Manifest, covariance: FloatArray
) -> Callable[[FloatArray], FloatArray]:
    """log p(x | trace) + constant for active states [B, n]."""
    active, count = active_of(manifest), len(manifest.parameters)
    x0, P0 = packed(case.prior, active)
    prior_whitening = np.linalg.inv(np.linalg.cholesky(P0))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def log_density(x: FloatArray) -> FloatArray:
        images = model.predict_crossed(case.trace.features[None], x[None, :, :count])[0]
        residuals = (images - case.trace.voltage_v) @ whitening.T
        deviations = (x - x0) @ prior_whitening.T
        density: FloatArray = -0.5 * ((residuals**2).sum(axis=1) + (deviations**2).sum(axis=1))
        return density

    return log_density


def _filtered(
    case: PosteriorCase, model: VoltageModel, manifest: Manifest, settings: Settings
) -> list[Estimate]:
    found = calibrate([case.prior], [case.trace], [case.prior.odometer], model, manifest, settings)
    return [calibrated.estimate for calibrated in found]


def _distance(samples: FloatArray, x: FloatArray, P: FloatArray) -> Figures:
    """Means over the states."""
    std = samples.std(axis=0)
    away = np.abs(x - samples.mean(axis=0)) / std
    return {
        "mean_distance": float(away.mean()),
        "largest_distance": float(away.max()),
        "width_ratio": float((np.sqrt(np.diagonal(P)) / std).mean()),
    }
