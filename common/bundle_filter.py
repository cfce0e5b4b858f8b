"""The filter of one bundle: sigma points through its model, as images, lines and costs.

Pure: numpy in, numpy out; states are free numbers (common.bounds). Must never judge a result: the
verdict does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from common import ukf
from common.discrepancy import correlation, point_variance
from common.errors import CalibrationError
from common.filter_values import Evidence, Fit, Prior, Settings
from common.layout import layout_of
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays, shares

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

# Spread of a linearisation around a state that no update led to, in prior stds.
START_SHARE: Final = 0.1
REWEIGHTINGS: Final = 3  # of the points along one line: the weights have then nearly settled


class BundleFilter:
    """Which states are active, and how their sigma points are predicted and updated."""

    def __init__(self, model: VoltageModel, manifest: Manifest, settings: Settings) -> None:
        self.model, self.manifest, self.settings = model, manifest, settings
        self.layout = layout_of(manifest)
        self._count = self.layout.count
        sigmas = _sigmas(len(self.layout.active), self._count, settings)
        self.weights, self._moving, self.theta_weights = sigmas

    def evidence(self, traces: Sequence[TraceArrays], discrepancy_v: FloatArray) -> Evidence:
        """Traces of equal length as measurements, for vehicles with discrepancies [B] in volts."""
        z = np.array([trace.voltage_v for trace in traces])
        along = correlation(z.shape[1], self.manifest.discrepancy_correlation)
        noise_v, own_v = self.manifest.measurement_noise_std_v, discrepancy_v[:, None]
        return Evidence(
            features=np.array([trace.features for trace in traces]),
            z=z,
            share=shares(np.array([trace.time_s for trace in traces])),
            spread=point_variance(noise_v, own_v),
            r=point_variance(noise_v, own_v * np.sqrt(along.variances)),
            correlation=along,
        )

    def prior(self, x: FloatArray, P: FloatArray) -> Prior:
        """The prior with its root and information. Raises CalibrationError when P is none.

        In one order in memory: what numpy multiplies otherwise depends on how many vehicles come.
        """
        x, P = np.ascontiguousarray(x), np.ascontiguousarray(P)
        return Prior(x, P, _root(P), _inverse(P))

    def images(self, states: FloatArray, features: FloatArray) -> FloatArray:
        """Voltage [B, k, m] of every state [B, k, n] over every row of features [B, m, F]."""
        theta = self.layout.bounds.bounded(states[:, :, : self._count])
        return self.model.predict_crossed(features, theta)

    def unscented(self, prior: Prior, evidence: Evidence) -> tuple[ukf.Posterior, FloatArray]:
        """The unscented update as the literature has it, and the voltage [B, m] at the mean."""
        sigmas = ukf.sigma_points(prior.x, prior.root, self.weights)
        images = self.images(sigmas[:, self._moving], evidence.features)
        if len(self._moving) < sigmas.shape[1]:
            found, images = images, np.repeat(images[:, :1], sigmas.shape[1], axis=1)
            images[:, self._moving] = found
        along = evidence.correlation
        posterior = ukf.update(
            sigmas, along.rotated(images), along.rotated(evidence.z), evidence.r, self.weights
        )
        return posterior, images[:, 0]

    def line(self, fit: Fit, evidence: Evidence) -> ukf.Line:
        """h about a fit, over the spread that it leaves."""
        count = self._count
        return self._line(fit, _root(fit.P[:, :count, :count]), evidence)

    def point_weights(self, line: ukf.Line, evidence: Evidence) -> FloatArray:
        """Roots of the weights [B, m]: where the voltage is steep a point tells less."""
        spread = evidence.spread
        return np.sqrt(spread / (spread + self._point_variance(line)))

    def update(
        self, prior: Prior, line: ukf.Line, weight: FloatArray, evidence: Evidence
    ) -> ukf.Posterior:
        """The prior updated by a line whose points count by weight [B, m] and by Huber's.

        Iteratively reweighted least squares (P. J. Huber, "Robust Statistics", 1981): what is left
        along the line decides the next weights, which costs no image.
        """
        along, limit = evidence.correlation, self.settings.huber * np.sqrt(evidence.spread)
        left = evidence.z - line.z_hat
        innovation = left - line.along(prior.x)
        for _ in range(REWEIGHTINGS):
            robust = weight / np.sqrt(np.maximum(np.abs(left) * weight / limit, 1.0))
            found = ukf.line_update(
                prior.x,
                prior.information,
                along.rotated(line.H_t * robust[:, None]),
                along.rotated(innovation * robust),
                evidence.r + along.rotated_variance(line.unexplained * np.square(robust)),
            )
            left = evidence.z - line.z_hat - line.along(found.x)
        return found

    def costs(
        self,
        states: FloatArray,
        images: FloatArray,
        prior: Prior,
        evidence: Evidence,
        weight: FloatArray | None = None,
    ) -> FloatArray:
        """Cost [B, k] of states [B, k, n], twice the negative log posterior with Huber's loss.

        `images` [B, k, m] are the voltages there; `weight` [B, m]: roots of the weights of the
        points, 1 where None.
        """
        limit, scale = self.settings.huber, 1.0 / np.sqrt(evidence.spread)
        if weight is not None:
            scale = scale * weight
        scaled = (images - evidence.z[:, None]) * scale[:, None]
        # The square up to the limit, and straight on beyond it: s^2 - (s - limit)^2.
        beyond = np.maximum(np.abs(scaled) - limit, 0.0)
        loss = np.square(scaled) - np.square(beyond)
        along = evidence.correlation
        if along.axes is not None:
            loss = np.square(along.rotated(np.copysign(np.sqrt(loss), scaled)))
        whitened = loss * (evidence.spread / evidence.r)[:, None]
        return np.asarray(whitened.sum(axis=2) + _squared(states - prior.x[:, None], prior))

    def surprise(self, fit: Fit, prior: Prior, evidence: Evidence) -> FloatArray:
        """Normalised innovation squared [B], m where everything is as assumed.

        For a linear h, y' S^-1 y is the smallest value of ||z - h(x)||^2 / R + ||x - x0||^2 / P (B.
        M. Bell, F. W. Cathey, "The iterated Kalman filter update as a Gauss-Newton method", IEEE
        Trans. Automatic Control 38, 1993). That value at the fit is what is given here: at a steep
        end of discharge, where the prior's sigma points span volts, y' S^-1 y itself means nothing.
        """
        line = self.line(fit, evidence)
        residual = (evidence.z - fit.image) * self.point_weights(line, evidence)
        whitened = np.square(evidence.correlation.rotated(residual)) / evidence.r
        return np.asarray(whitened.sum(axis=1) + self.shift(fit, prior))

    def shift(self, fit: Fit, prior: Prior) -> FloatArray:
        """How far [B] the fit lies from the prior: Mahalanobis distance squared, n if expected."""
        return _squared((fit.x - prior.x)[:, None], prior)[:, 0]

    def band_std(self, x: FloatArray, P: FloatArray, features: FloatArray) -> FloatArray:
        """Standard deviation [m] of the voltage by the parameters alone, one state [1, n]."""
        sigmas = self.theta_sigmas(x, P)
        images = self.images(sigmas, features[None])
        _, std = ukf.unscented_moments(images, self.theta_weights)
        line = ukf.linearise(sigmas, images, self.theta_weights)
        return np.asarray(np.sqrt(std[0] ** 2 + self._point_variance(line)[0]))

    def theta_sigmas(self, x: FloatArray, P: FloatArray) -> FloatArray:
        """Sigma points [1, k, P] of the parameters alone. Raises CalibrationError when P is none.

        Their weights are `theta_weights`.
        """
        count = self._count
        root = _root(P[:, :count, :count])
        return ukf.sigma_points(x[:, :count], root, self.theta_weights)

    def _line(self, fit: Fit, root: FloatArray, evidence: Evidence) -> ukf.Line:
        """About a fit, whose own image is there already, by the root [B, P, P] of theta's part."""
        sigmas = ukf.sigma_points(fit.x[:, : self._count], root, self.theta_weights)
        around = self.images(sigmas[:, 1:], evidence.features)
        images = np.concatenate([fit.image[:, None], around], axis=1)
        return ukf.linearise(sigmas, images, self.theta_weights)

    def _point_variance(self, line: ukf.Line) -> FloatArray:
        variance: FloatArray = self.layout.point_variances @ np.square(line.H_t)
        return variance


@lru_cache(maxsize=64)
def _sigmas(
    states: int, parameters: int, settings: Settings
) -> tuple[ukf.SigmaWeights, IntArray, ukf.SigmaWeights]:
    """Weights of the sigma points, which of them move theta, and the weights of these alone.

    The root of a covariance is lower triangular and the rates come last: along their columns theta
    stands still, and so does the voltage. Such a point counts as the centre.
    """
    whole = ukf.merwe_weights(states, settings.alpha, settings.beta, settings.kappa)
    moving = np.r_[0, 1 : parameters + 1, states + 1 : states + 1 + parameters]
    mean, covariance = whole.mean[moving], whole.covariance[moving]
    mean[0] += whole.mean.sum() - mean.sum()
    covariance[0] += whole.covariance.sum() - covariance.sum()
    return whole, moving, ukf.SigmaWeights(mean, covariance, whole.scale)


def _root(P: FloatArray) -> FloatArray:
    try:
        return np.linalg.cholesky(P)
    except np.linalg.LinAlgError as error:
        raise CalibrationError("the prior covariance is not positive definite") from error


def _squared(deviations: FloatArray, prior: Prior) -> FloatArray:
    """d' P^-1 d [B, k] of deviations [B, k, n]."""
    return np.asarray(((deviations @ prior.information) * deviations).sum(axis=2))


def _inverse(P: FloatArray) -> FloatArray:
    """Of covariances whose variances lie decades apart: by way of the correlations."""
    std = np.sqrt(np.diagonal(P, axis1=1, axis2=2))
    scale = std[:, :, None] * std[:, None, :]
    inverse: FloatArray = np.linalg.inv(P / scale) / scale
    return inverse
