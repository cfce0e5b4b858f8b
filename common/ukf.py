"""The unscented Kalman filter's equations, for many independent filters at once.

Sigma points and weights: van der Merwe's scaled form (R. van der Merwe, "Sigma-Point Kalman
Filters for Probabilistic Inference in Dynamic State-Space Models", PhD thesis, 2004, as in Julier
and Uhlmann 1997). B is the number of filters, n of states, k = 2n + 1 of sigma points, m of
measurements. With R diagonal, the m x m innovation covariance S = Y W Y' + R is never formed: by
the matrix inversion lemma every solve happens in the k-dimensional space of the sigma points.

Pure numpy. Must never clip, gate or judge: that is the calibration's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SigmaWeights:
    """Weights [k] of the mean and of the covariance; `scale` is n + lambda."""

    mean: FloatArray
    covariance: FloatArray
    scale: float


@dataclass(frozen=True)
class Posterior:
    """x [B, n] and P [B, n, n] after the update."""

    x: FloatArray
    P: FloatArray


def merwe_weights(
    states: int, alpha: float = 1.0, beta: float = 2.0, kappa: float = 0.0
) -> SigmaWeights:
    """Scaled sigma-point weights for n = `states`."""
    lam = alpha**2 * (states + kappa) - states
    scale = states + lam
    mean = np.full(2 * states + 1, 0.5 / scale)
    covariance = mean.copy()
    mean[0] = lam / scale
    covariance[0] = mean[0] + 1 - alpha**2 + beta
    return SigmaWeights(mean, covariance, scale)


def sigma_points(x: FloatArray, root: FloatArray, weights: SigmaWeights) -> FloatArray:
    """Sigma points [B, k, n] around x [B, n] by the lower triangular root [B, n, n] of P.

    They are x, x + columns of the root of scale * P, and x - the same.
    """
    columns = np.sqrt(weights.scale) * root.swapaxes(-1, -2)
    centre = x[:, None, :]
    return np.concatenate([centre, centre + columns, centre - columns], axis=1)


def unscented_moments(points: FloatArray, weights: SigmaWeights) -> tuple[FloatArray, FloatArray]:
    """Mean [B, d] and standard deviation [B, d] of transformed sigma points [B, k, d]."""
    mean = weights.mean @ points
    variance = weights.covariance @ (points - mean[:, None, :]) ** 2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def update(
    sigmas: FloatArray,
    transformed: FloatArray,
    z: FloatArray,
    r: FloatArray,
    weights: SigmaWeights,
) -> Posterior:
    """Measurement update from sigma points drawn from the prior, so that P = X W X'.

    sigmas: [B, k, n]; transformed: h(sigmas) [B, k, m]; z: measurements [B, m];
    r: diagonal of R [B, m], volts squared.

    With X, Y the deviations of sigma points and their images (rows), W the covariance weights and
    G = Y R^-1 Y': K y = X' A Y R^-1 y and P+ = X' A X with A = W (I + G W)^-1.
    """
    x, z_hat = weights.mean @ sigmas, weights.mean @ transformed
    X = sigmas - x[:, None, :]
    Y = transformed - z_hat[:, None, :]
    y = z - z_hat
    Y_scaled = Y / r[:, None, :]
    A = _gain_core(Y_scaled @ Y.swapaxes(-1, -2), weights.covariance)
    X_tA = X.swapaxes(-1, -2) @ A
    return Posterior(x + _times(X_tA, _times(Y_scaled, y)), _symmetric(X_tA @ X))


@dataclass(frozen=True)
class Line:
    """h(x) ~ z_hat + H (x - x_i) for B filters: x_i [B, q], z_hat [B, m], H' [B, q, m].

    Of the first q states; along the others h stands still. `unexplained` [B, m] is the variance of
    h over the sigma points that the line does not hold.
    """

    x: FloatArray
    z_hat: FloatArray
    H_t: FloatArray
    unexplained: FloatArray

    def along(self, x: FloatArray) -> FloatArray:
        """H (x - x_i) [B, m] at states x [B, n]."""
        moved = x[:, : self.x.shape[1]] - self.x
        return np.asarray((moved[:, None] @ self.H_t)[:, 0])


def linearise(sigmas: FloatArray, transformed: FloatArray, weights: SigmaWeights) -> Line:
    """Statistical linear regression of h over sigma points [B, k, n] of N(x_i, P_i).

    H' = P_i^-1 X' W Y. The points lie in pairs x_i +- the columns of chol(scale * P_i), so H is the
    central difference D along the columns, and D' D / scale is the variance that it explains.
    """
    n = sigmas.shape[2]
    x_i, z_hat = sigmas[:, 0], weights.mean @ transformed
    Y = transformed - z_hat[:, None, :]
    D = 0.5 * (transformed[:, 1 : n + 1] - transformed[:, n + 1 :])
    H_t = np.linalg.solve(sigmas[:, 1 : n + 1] - x_i[:, None, :], D)
    unexplained = weights.covariance @ (Y * Y) - (D * D).sum(axis=1) / weights.scale
    return Line(x_i, z_hat, H_t, np.maximum(unexplained, 0.0))


def line_update(
    prior_x: FloatArray,
    prior_information: FloatArray,
    H_t: FloatArray,
    y: FloatArray,
    r: FloatArray,
) -> Posterior:
    """Update of the prior by a linearised h, H' [B, q, m] along the first q states.

    y [B, m] is the innovation at the prior's mean, along the line; r [B, m] holds what the line
    does not explain, too. One iteration of the iterated posterior linearisation filter (A. F.
    Garcia-Fernandez, L. Svensson, M. R. Morelande, S. Sarkka, "Posterior Linearization Filter",
    IEEE Trans. Signal Processing 63, 2015), in information form: P+ = (P^-1 + H' R^-1 H)^-1 stays
    positive definite. prior_information [B, n, n] is the inverse of the prior's covariance.
    """
    q = H_t.shape[1]
    weighted = H_t / r[:, None, :]
    information = prior_information.copy()
    information[:, :q, :q] += weighted @ H_t.swapaxes(-1, -2)
    P: FloatArray = np.linalg.inv(information)
    return Posterior(prior_x + _times(P[:, :, :q], _times(weighted, y)), _symmetric(P))


def _times(A: FloatArray, v: FloatArray) -> FloatArray:
    """A v for matrices A [B, i, j] and vectors v [B, j]."""
    product: FloatArray = (A @ v[..., None])[..., 0]
    return product


def _gain_core(G: FloatArray, w: FloatArray) -> FloatArray:
    """A = W (I + G W)^-1, [B, k, k]; for W >= 0 through its root, so that A stays semidefinite."""
    identity = np.eye(len(w))
    if np.any(w < 0):
        return np.linalg.solve(identity + w[:, None] * G, np.diag(w)[None])
    root: FloatArray = np.sqrt(w)
    inner: FloatArray = np.linalg.inv(identity + root[:, None] * G * root)
    core: FloatArray = root[:, None] * inner * root
    return core


def _symmetric(P: FloatArray) -> FloatArray:
    symmetric: FloatArray = 0.5 * (P + P.swapaxes(-1, -2))
    return symmetric
