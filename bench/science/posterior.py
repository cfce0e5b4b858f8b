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
from bench.science.methods.common_ground import jacobian
from bench.science.methods.common_ground import residual_covariance as filter_covariance
from bench.science.spread import Figures
from common.calibration import Estimate, Settings, calibrate, extrapolate, with_trip_spread
from common.estimate import bounded_theta, pack
from common.layout import layout_of
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
# (trace, theta, model, manifest) -> covariance of the trace's residuals [m, m] about theta.
ResidualCovariance = Callable[[TraceArrays, FloatArray, VoltageModel, Manifest], FloatArray]

GAUSSIAN = Settings(huber=1e9)
CHAINS = 4
DISPERSION = 2.0  # starts are drawn from the filter's posterior, this much wider
CONVERGED_BELOW = 1.01


@dataclass(frozen=True)
class PosteriorCase:
    """A breach with the prior at its odometer."""

    prior: Estimate
    trace: TraceArrays


def filter_s_residuals(
    trace: TraceArrays, theta: FloatArray, model: VoltageModel, manifest: Manifest
) -> FloatArray:
    """The filter's R about `theta`: where the voltage is steep, a point tells less."""
    points = len(trace.time_s)
    R = filter_covariance(points, manifest)
    _, slopes = jacobian(theta, trace.features, model, manifest)
    own = np.square(slopes) @ np.square([p.point_std for p in manifest.parameters])
    spread = R[0, 0]
    inflated = np.sqrt((spread + own) / spread)
    return np.asarray(R * inflated[:, None] * inflated)


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
    residual_covariance: ResidualCovariance = filter_s_residuals,
) -> list[Figures]:
    """Each converged case: mean distance in the chain's deviations, ratio of widths, R-hat."""
    found = []
    for number, case in enumerate(cases):
        ours = _filtered(case, model, manifest, GAUSSIAN)
        shipped = _filtered(case, model, manifest, Settings())
        of_trip = with_trip_spread(case.prior, manifest)
        covariance = residual_covariance(case.trace, ours.theta, model, manifest)
        density = log_posterior(of_trip, case.trace, model, manifest, covariance)
        rng = np.random.default_rng([seed, number])
        samples = chains(with_trip_spread(ours, manifest), density, manifest, steps, rng)
        battery = of_the_battery(samples, case.prior, manifest, rng)
        flat = battery.reshape(-1, samples.shape[-1])
        figures = _distance(flat, ours, manifest)
        away = _distance(flat, shipped, manifest)["mean_distance"]
        found.append({**figures, "shipped_mean_distance": away, "r_hat": split_r_hat(samples)})
    return found


def of_the_battery(
    samples: FloatArray, before: Estimate, manifest: Manifest, rng: np.random.Generator
) -> FloatArray:
    """From samples of a trip's states to the battery's: x given x_t = x + e, e the trip's own."""
    (x0,), (P,) = pack([before], manifest)
    own = np.zeros(len(x0))
    own[: len(manifest.parameters)] = layout_of(manifest).trip_variances
    if not own.any():
        return samples
    G = P @ np.linalg.inv(P + np.diag(own))
    rest = G * own
    noise = rng.multivariate_normal(np.zeros(len(x0)), 0.5 * (rest + rest.T), samples.shape[:2])
    return np.asarray(x0 + (samples - x0) @ G.T + noise)


def chains(
    around: Estimate,
    log_density: Callable[[FloatArray], FloatArray],
    manifest: Manifest,
    steps: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Samples [steps // 2, CHAINS, n] of the filter's free states, sampled in whitened ones."""
    (x,), (P,) = pack([around], manifest)
    root = np.linalg.cholesky(P)
    start = DISPERSION * rng.normal(size=(CHAINS, len(x)))
    identity = np.tile(np.eye(len(x)), (CHAINS, 1, 1))
    samples = adaptive_metropolis(
        lambda u: log_density(x + u @ root.T), start, identity, steps, rng
    )
    return np.asarray(x + samples @ root.T)


def log_posterior(
    before: Estimate,
    trace: TraceArrays,
    model: VoltageModel,
    manifest: Manifest,
    covariance: FloatArray,
) -> Callable[[FloatArray], FloatArray]:
    """log p(x | trace) + constant for free states [B, n] of a trip with the prior `before`."""
    count = len(manifest.parameters)
    (x0,), (P0,) = pack([before], manifest)
    prior_whitening = np.linalg.inv(np.linalg.cholesky(P0))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def log_density(x: FloatArray) -> FloatArray:
        theta = bounded_theta(x[:, :count], manifest)
        images = model.predict_crossed(trace.features[None], theta[None])[0]
        residuals = (images - trace.voltage_v) @ whitening.T
        deviations = (x - x0) @ prior_whitening.T
        density: FloatArray = -0.5 * ((residuals**2).sum(axis=1) + (deviations**2).sum(axis=1))
        return density

    return log_density


def _filtered(
    case: PosteriorCase, model: VoltageModel, manifest: Manifest, settings: Settings
) -> Estimate:
    (found,) = calibrate(
        [case.prior], [case.trace], [case.prior.odometer], model, manifest, settings
    )
    return found.estimate


def _distance(samples: FloatArray, found: Estimate, manifest: Manifest) -> Figures:
    """Means over the states."""
    (x,), (P,) = pack([found], manifest)
    std = samples.std(axis=0)
    away = np.abs(x - samples.mean(axis=0)) / std
    return {
        "mean_distance": float(away.mean()),
        "largest_distance": float(away.max()),
        "width_ratio": float((np.sqrt(np.diagonal(P)) / std).mean()),
    }
