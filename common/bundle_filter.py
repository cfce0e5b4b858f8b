"""The filter of one bundle: sigma points through its model, linearised once or again, robustly.

Pure: numpy in, numpy out. Must never judge a result: the calibration does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common import ukf
from common.errors import CalibrationError
from common.estimate import active_states
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

SETTLED = 0.1  # posterior standard deviations between passes; below it another brings nothing


@dataclass(frozen=True)
class Settings:
    """Sigma-point spread, passes, robustness, and how many surprises the model's discrepancy holds.

    `passes` 1 is the plain unscented filter; each further pass linearises again around the
    posterior. `huber` is where a residual, in standard deviations, begins to count less. The
    discrepancy is correlated along a trip: m points of it count for `independent_points`, so its
    variance is multiplied by m / independent_points.
    """

    alpha: float = 1.0
    beta: float = 2.0
    kappa: float = 0.0
    independent_points: float = 5.0
    passes: int = 4
    huber: float = 0.5


@dataclass(frozen=True)
class Evidence:
    """Traces of B vehicles of equal length: features [B, m, F], voltages z, variances r [B, m]."""

    features: FloatArray
    z: FloatArray
    r: FloatArray


@dataclass(frozen=True)
class FirstPass:
    """The unscented update, and what the prior was worth: error [B] in volts, NIS [B].

    The NIS counts each point once, with the noise and discrepancy of a single point: a prior that
    is right gives about one per point. (The update itself counts the trip for what it is worth.)
    """

    posterior: ukf.Posterior
    error_before_v: FloatArray
    nis: FloatArray


class BundleFilter:
    """Which states are active, and how their sigma points are predicted and updated."""

    def __init__(self, model: VoltageModel, manifest: Manifest, settings: Settings) -> None:
        self.model, self.manifest, self.settings = model, manifest, settings
        self.active = active_states(manifest)
        noise, discrepancy = manifest.measurement_noise_std_v, manifest.model_discrepancy_std_v
        self._single_point_variance = noise**2 + discrepancy**2
        self.weights = ukf.merwe_weights(
            len(self.active), settings.alpha, settings.beta, settings.kappa
        )

    def evidence(self, traces: Sequence[TraceArrays]) -> Evidence:
        """Traces of equal length as measurements."""
        z = np.stack([trace.voltage_v for trace in traces])
        variance = _measurement_variance(z.shape[1], self.manifest, self.settings)
        return Evidence(np.stack([t.features for t in traces]), z, np.full(z.shape, variance))

    def sigma_points(self, x: FloatArray, P: FloatArray) -> FloatArray:
        """Sigma points [B, k, n]. Raises CalibrationError when P is not positive definite."""
        try:
            return ukf.sigma_points(x, P, self.weights)
        except np.linalg.LinAlgError as error:
            raise CalibrationError("the prior covariance is not positive definite") from error

    def images(self, states: FloatArray, features: FloatArray) -> FloatArray:
        """Voltage [B, k, m] of every state [B, k, n] over every row of features [B, m, F]."""
        return self.model.predict_crossed(features, states[:, :, : len(self.manifest.parameters)])

    def first_pass(self, x: FloatArray, P: FloatArray, evidence: Evidence) -> FirstPass:
        """The unscented update as the literature has it."""
        sigmas = self.sigma_points(x, P)
        images = self.images(sigmas, evidence.features)
        z, r = evidence.z, np.full(evidence.z.shape, self._single_point_variance)
        return FirstPass(
            posterior=ukf.update(sigmas, images, z, evidence.r, self.weights),
            error_before_v=_mean_absolute(images[:, 0] - z),
            nis=ukf.normalised_innovation_squared(images, z, r, self.weights),
        )

    def refine(
        self, x: FloatArray, P: FloatArray, guess: ukf.Posterior, evidence: Evidence
    ) -> ukf.Posterior:
        """Linearise again around the guess, with residuals beyond Huber's constant weighed down."""
        prior_information = np.linalg.inv(P)
        settled = np.zeros(len(x), dtype=bool)
        for _ in range(self.settings.passes - 1):
            before = guess
            sigmas = self.sigma_points(guess.x, guess.P)
            images = self.images(sigmas, evidence.features)
            z, r = evidence.z, self._robust(evidence, images[:, 0])
            guess = ukf.relinearised_update(
                x, prior_information, sigmas, images, z, r, self.weights
            )
            if settled.any():
                guess = _kept_where(settled, before, guess)
            settled |= _has_settled(before, guess)
            if settled.all():
                break
        return guess

    def error_v(self, x: FloatArray, evidence: Evidence) -> FloatArray:
        """Mean absolute error [B] at states x [B, n]."""
        images = self.images(x[:, None, :], evidence.features)[:, 0]
        return _mean_absolute(images - evidence.z)

    def _robust(self, evidence: Evidence, predicted: FloatArray) -> FloatArray:
        """Variances for iteratively reweighted least squares (P. J. Huber, "Robust Statistics")."""
        scaled = np.abs(evidence.z - predicted) / (self.settings.huber * np.sqrt(evidence.r))
        robust: FloatArray = evidence.r * np.maximum(scaled, 1.0)
        return robust


def _mean_absolute(error: FloatArray) -> FloatArray:
    mean: FloatArray = np.abs(error).sum(axis=1) / error.shape[1]
    return mean


def _has_settled(before: ukf.Posterior, after: ukf.Posterior) -> npt.NDArray[np.bool_]:
    """Of which filters [B] no state moved by more than SETTLED of its standard deviation."""
    variance = np.diagonal(after.P, axis1=1, axis2=2)
    settled: npt.NDArray[np.bool_] = ((after.x - before.x) ** 2 <= SETTLED**2 * variance).all(
        axis=1
    )
    return settled


def _kept_where(
    settled: npt.NDArray[np.bool_], before: ukf.Posterior, after: ukf.Posterior
) -> ukf.Posterior:
    """A filter that has settled stays: in company it ends where it would end alone."""
    one, two = settled[:, None], settled[:, None, None]
    return ukf.Posterior(
        np.where(one, before.x, after.x),
        np.where(two, before.P, after.P),
        np.where(one, before.y, after.y),
        np.where(settled, before.nis, after.nis),
    )


def _measurement_variance(points: int, manifest: Manifest, settings: Settings) -> float:
    repeats = max(points / settings.independent_points, 1.0)
    return manifest.measurement_noise_std_v**2 + repeats * manifest.model_discrepancy_std_v**2
