"""The filter of one bundle: sigma points through its model, linearised once or again, robustly.

Pure: numpy in, numpy out; states are free numbers (common.bounds). Must never judge a result: the
calibration does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common import bounds, ukf
from common.discrepancy import Correlation, correlation
from common.errors import CalibrationError
from common.estimate import active_states
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

SETTLED: Final = 0.1  # posterior standard deviations between passes: another brings nothing
# Of the way to where the filter wants to go: the one with the lowest cost is taken.
STEPS: Final = (0.0, 1.0, 0.5, 0.25, 0.1)
FIRST_STEPS: Final = (0.0, 0.25, 0.5, 1.0, 1.5)
# Spread of the first linearisation around a start that no update led to, in prior stds.
START_SHARE: Final = 0.1


@dataclass(frozen=True)
class Settings:
    """Sigma-point spread, passes and robustness.

    `passes` 1 is the plain unscented filter; each further pass linearises again around the
    posterior. `huber` is where a residual, in standard deviations, begins to count less.
    """

    alpha: float = 1.0
    beta: float = 2.0
    kappa: float = 0.0
    passes: int = 6
    huber: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """Traces of B vehicles of equal length: features [B, m, F], voltages z [B, m].

    `spread` [B] is the variance of one point (noise and discrepancy), `r` [B, m] the variances in
    the coordinates of `correlation`.
    """

    features: FloatArray
    z: FloatArray
    spread: FloatArray
    r: FloatArray
    correlation: Correlation


@dataclass(frozen=True)
class Prior:
    """x [B, n], P [B, n, n] and its inverse."""

    x: FloatArray
    P: FloatArray
    information: FloatArray


@dataclass(frozen=True)
class Fit:
    """x [B, n] and P [B, n, n]."""

    x: FloatArray
    P: FloatArray


class BundleFilter:
    """Which states are active, and how their sigma points are predicted and updated."""

    def __init__(self, model: VoltageModel, manifest: Manifest, settings: Settings) -> None:
        self.model, self.manifest, self.settings = model, manifest, settings
        self.active = active_states(manifest)
        self._count = len(manifest.parameters)
        self._lower = np.array([p.lower for p in manifest.parameters])
        self._upper = np.array([p.upper for p in manifest.parameters])
        self._point_variances = np.array([p.point_std**2 for p in manifest.parameters])
        self.weights = ukf.merwe_weights(
            len(self.active), settings.alpha, settings.beta, settings.kappa
        )

    def evidence(self, traces: Sequence[TraceArrays], discrepancy_v: FloatArray) -> Evidence:
        """Traces of equal length as measurements, for vehicles with discrepancies [B] in volts."""
        z = np.stack([trace.voltage_v for trace in traces])
        along = correlation(z.shape[1], self.manifest.discrepancy_correlation)
        noise, own = self.manifest.measurement_noise_std_v**2, np.square(discrepancy_v)
        return Evidence(
            features=np.stack([trace.features for trace in traces]),
            z=z,
            spread=noise + own,
            r=noise + own[:, None] * along.variances,
            correlation=along,
        )

    def prior(self, x: FloatArray, P: FloatArray) -> Prior:
        """The prior with its information. Raises CalibrationError when P is none."""
        try:
            np.linalg.cholesky(P)
        except np.linalg.LinAlgError as error:
            raise CalibrationError("the prior covariance is not positive definite") from error
        return Prior(x, P, _inverse(P))

    def sigma_points(self, x: FloatArray, P: FloatArray) -> FloatArray:
        """Sigma points [B, k, n]. Raises CalibrationError when P is not positive definite."""
        try:
            return ukf.sigma_points(x, P, self.weights)
        except np.linalg.LinAlgError as error:
            raise CalibrationError("the prior covariance is not positive definite") from error

    def images(self, states: FloatArray, features: FloatArray) -> FloatArray:
        """Voltage [B, k, m] of every state [B, k, n] over every row of features [B, m, F]."""
        theta = bounds.bounded(states[:, :, : self._count], self._lower, self._upper)
        return self.model.predict_crossed(features, theta)

    def sigma_images(self, sigmas: FloatArray, features: FloatArray) -> FloatArray:
        """Images [B, k, m] of sigma points [B, k, n], whose order is `ukf.sigma_points`'.

        The root of the covariance is lower triangular and the rates come last: along their columns
        theta stands still, and so does the voltage.
        """
        n, count = sigmas.shape[2], self._count
        if n == count:
            return self.images(sigmas, features)
        moving = np.r_[0, 1 : count + 1, n + 1 : n + 1 + count]
        found = self.images(sigmas[:, moving], features)
        images = np.repeat(found[:, :1], sigmas.shape[1], axis=1)
        images[:, moving] = found
        return images

    def unscented(self, prior: Prior, evidence: Evidence) -> ukf.Posterior:
        """The unscented update as the literature has it."""
        sigmas = self.sigma_points(prior.x, prior.P)
        along = evidence.correlation
        images = along.rotated(self.sigma_images(sigmas, evidence.features))
        return ukf.update(sigmas, images, along.rotated(evidence.z), evidence.r, self.weights)

    def fit(self, prior: Prior, evidence: Evidence) -> Fit:
        """From the best of a few steps along the unscented update, linearised again and again."""
        first = self.unscented(prior, evidence)
        steps = np.array(FIRST_STEPS)[:, None]
        starts = prior.x[:, None] + steps * (first.x - prior.x)[:, None]
        best = self.costs(starts, prior, evidence).argmin(axis=1)
        P = np.where((best == 0)[:, None, None], START_SHARE**2 * prior.P, first.P)
        return self.refine(prior, Fit(starts[np.arange(len(best)), best], P), evidence)

    def refine(self, prior: Prior, start: Fit, evidence: Evidence) -> Fit:
        """Linearise again around the last fit, as far as that lowers the cost (a line search).

        S. Sarkka, L. Svensson, "Levenberg-Marquardt and Line-Search Extended Kalman Smoothers",
        ICASSP 2020: near a steep end of discharge the full step may overshoot.
        """
        found = start
        moving = np.ones(len(start.x), dtype=bool)
        for _ in range(self.settings.passes - 1):
            found, moving = self._pass(prior, found, moving, evidence)
            if not moving.any():
                break
        return found

    def costs(
        self,
        states: FloatArray,
        prior: Prior,
        evidence: Evidence,
        weight: FloatArray | None = None,
    ) -> FloatArray:
        """Cost [B, k] of states [B, k, n], twice the negative log posterior with Huber's loss.

        `weight` [B, m]: roots of the weights of the points, 1 where None.
        """
        limit = self.settings.huber
        residual = self.images(states, evidence.features) - evidence.z[:, None]
        if weight is not None:
            residual = residual * weight[:, None]
        scaled = np.abs(residual) / np.sqrt(evidence.spread)[:, None, None]
        loss = np.where(scaled <= limit, scaled**2, 2 * limit * scaled - limit**2)
        signed = np.sign(residual) * np.sqrt(loss * evidence.spread[:, None, None])
        whitened = evidence.correlation.rotated(signed) ** 2 / evidence.r[:, None]
        return np.asarray(whitened.sum(axis=2) + _squared(states - prior.x[:, None], prior))

    def surprise(self, fit: Fit, prior: Prior, evidence: Evidence) -> FloatArray:
        """Normalised innovation squared [B], m where everything is as assumed.

        For a linear h, y' S^-1 y is the smallest value of ||z - h(x)||^2 / R + ||x - x0||^2 / P (B.
        M. Bell, F. W. Cathey, "The iterated Kalman filter update as a Gauss-Newton method", IEEE
        Trans. Automatic Control 38, 1993). That value at the fit is what is given here: at a steep
        end of discharge, where the prior's sigma points span volts, y' S^-1 y itself means nothing.
        """
        line = self._line(fit.x, START_SHARE**2 * prior.P, evidence)
        residual = (evidence.z - line.z_hat) * self._point_weights(line, evidence)
        whitened = evidence.correlation.rotated(residual) ** 2 / evidence.r
        return np.asarray(whitened.sum(axis=1) + self.shift(fit, prior))

    def shift(self, fit: Fit, prior: Prior) -> FloatArray:
        """How far [B] the fit lies from the prior: Mahalanobis distance squared, n if expected."""
        return _squared((fit.x - prior.x)[:, None], prior)[:, 0]

    def residuals(self, x: FloatArray, evidence: Evidence) -> FloatArray:
        """Measured minus predicted [B, m] at states x [B, n], volts."""
        return evidence.z - self.images(x[:, None, :], evidence.features)[:, 0]

    def slopes(self, fit: Fit, evidence: Evidence) -> FloatArray:
        """dV/dx [B, n, m] about a fit, over the spread that it leaves."""
        return self._line(fit.x, fit.P, evidence).H_t

    def band_std(self, x: FloatArray, P: FloatArray, features: FloatArray) -> FloatArray:
        """Standard deviation [m] of the voltage by the parameters alone, one state [1, n]."""
        sigmas = self.sigma_points(x, P)
        images = self.sigma_images(sigmas, features[None])
        _, std = ukf.unscented_moments(images, self.weights)
        line = ukf.linearise(sigmas, images, self.weights)
        return np.asarray(np.sqrt(std[0] ** 2 + self._point_variance(line)[0]))

    def _pass(
        self, prior: Prior, before: Fit, moving: npt.NDArray[np.bool_], evidence: Evidence
    ) -> tuple[Fit, npt.NDArray[np.bool_]]:
        """One linearisation; a filter that has settled stays: in company it ends as alone."""
        line = self._line(before.x, before.P, evidence)
        weight = self._point_weights(line, evidence)
        wanted = self._update(prior, line, weight, evidence)
        steps = np.array(STEPS)[:, None]
        states = before.x[:, None] + steps * (wanted.x - before.x)[:, None]
        best = self.costs(states, prior, evidence, weight).argmin(axis=1)
        after = Fit(
            np.where(moving[:, None], states[np.arange(len(best)), best], before.x),
            np.where(moving[:, None, None], wanted.P, before.P),
        )
        return after, moving & (best > 0) & ~_has_settled(before, after)

    def _update(
        self, prior: Prior, line: ukf.Line, weight: FloatArray, evidence: Evidence
    ) -> ukf.Posterior:
        scaled = np.abs(evidence.z - line.z_hat) * weight / np.sqrt(evidence.spread)[:, None]
        # Iteratively reweighted least squares (P. J. Huber, "Robust Statistics", 1981).
        weight = weight / np.sqrt(np.maximum(scaled / self.settings.huber, 1.0))
        along = evidence.correlation
        turned = ukf.Line(
            line.x,
            along.rotated(line.z_hat * weight),
            along.rotated(line.H_t * weight[:, None]),
            along.rotated_variance(line.unexplained * weight**2),
        )
        z = along.rotated(evidence.z * weight)
        return ukf.line_update(prior.x, prior.information, turned, z, evidence.r)

    def _line(self, x: FloatArray, P: FloatArray, evidence: Evidence) -> ukf.Line:
        sigmas = self.sigma_points(x, P)
        return ukf.linearise(sigmas, self.sigma_images(sigmas, evidence.features), self.weights)

    def _point_variance(self, line: ukf.Line) -> FloatArray:
        variance: FloatArray = self._point_variances @ line.H_t[:, : self._count] ** 2
        return variance

    def _point_weights(self, line: ukf.Line, evidence: Evidence) -> FloatArray:
        """Roots of the weights [B, m]: where the voltage is steep a point tells less."""
        spread = evidence.spread[:, None]
        return np.sqrt(spread / (spread + self._point_variance(line)))


def _has_settled(before: Fit, after: Fit) -> npt.NDArray[np.bool_]:
    """Of which filters [B] no state moved by more than SETTLED of its standard deviation."""
    variance = np.diagonal(after.P, axis1=1, axis2=2)
    settled: npt.NDArray[np.bool_] = ((after.x - before.x) ** 2 <= SETTLED**2 * variance).all(
        axis=1
    )
    return settled


def _squared(deviations: FloatArray, prior: Prior) -> FloatArray:
    """d' P^-1 d [B, k] of deviations [B, k, n]."""
    return np.asarray(((deviations @ prior.information) * deviations).sum(axis=2))


def _inverse(P: FloatArray) -> FloatArray:
    """Of covariances whose variances lie decades apart: by way of the correlations."""
    std = np.sqrt(np.diagonal(P, axis1=1, axis2=2))
    scale = std[:, :, None] * std[:, None, :]
    inverse: FloatArray = np.linalg.inv(P / scale) / scale
    return inverse
