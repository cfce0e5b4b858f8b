"""The filter's equations agree with filterpy's and the linear Kalman filter, and stay in shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter
from hypothesis import given
from hypothesis import strategies as st

from common import ukf

FloatArray = npt.NDArray[np.float64]
Settings = tuple[float, float, float]
MEASUREMENTS = 50
SETTINGS: list[Settings] = [
    (1.0, 2.0, 0.0),
    (1.0, 2.0, 1.0),
    (0.5, 2.0, 0.0),  # the centre's weights are negative
    (0.1, 2.0, -1.0),
    (1.0, 0.0, 3.0),
]


def covariance(rng: np.random.Generator, states: int, scale: float = 1.0) -> FloatArray:
    root = rng.normal(size=(states, states))
    P: FloatArray = scale * (root @ root.T / states + 0.1 * np.eye(states))
    return P


def curved(states: int, seed: int = 5) -> Callable[[FloatArray], FloatArray]:
    """A nonlinear h [..., n] -> [..., m]."""
    weights = np.random.default_rng(seed).normal(size=(states, MEASUREMENTS))

    def h(x: FloatArray) -> FloatArray:
        line: FloatArray = x @ weights
        curve: FloatArray = np.tanh(line) + 0.1 * line**2
        return curve

    return h


def by_filterpy(
    x: FloatArray,
    P: FloatArray,
    z: FloatArray,
    r: FloatArray,
    h: Callable[[FloatArray], FloatArray],
    settings: Settings,
) -> Any:
    alpha, beta, kappa = settings
    points = MerweScaledSigmaPoints(len(x), alpha, beta, kappa)
    peer = UnscentedKalmanFilter(len(x), len(z), 1.0, h, lambda x, _dt: x, points)
    peer.x, peer.P, peer.Q, peer.R = x.copy(), P.copy(), np.zeros_like(P), np.diag(r)
    peer.predict()
    peer.update(z)
    return peer


@pytest.mark.parametrize("states", [2, 4])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_batch_agrees_with_filterpy_one_by_one(states: int, settings: Settings) -> None:
    rng = np.random.default_rng(states)
    h = curved(states)
    weights = ukf.merwe_weights(states, *settings)
    x = rng.normal(size=(6, states))
    P = np.stack([covariance(rng, states, 0.05) for _ in range(6)])
    z = h(x + rng.normal(0, 0.2, x.shape)) + rng.normal(0, 0.1, (6, MEASUREMENTS))
    r = rng.uniform(0.005, 0.02, (6, MEASUREMENTS))
    sigmas = ukf.sigma_points(x, np.linalg.cholesky(P), weights)
    found = ukf.update(sigmas, h(sigmas), z, r, weights)
    for i in range(6):
        peer = by_filterpy(x[i], P[i], z[i], r[i], h, settings)
        np.testing.assert_allclose(found.x[i], peer.x, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.P[i], peer.P, rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[2]])
def test_the_covariance_stays_symmetric_and_positive_definite_over_ten_thousand_updates(
    settings: Settings,
) -> None:
    states, rng = 4, np.random.default_rng(3)
    h, weights = curved(states), ukf.merwe_weights(states, *settings)
    truth = np.array([[0.3, -0.2, 0.1, 0.4]])
    x, P = np.zeros((1, states)), np.eye(states)[None].copy()
    r = np.full((1, MEASUREMENTS), 0.01)
    for _ in range(10_000):
        z = h(truth) + rng.normal(0, 0.1, (1, MEASUREMENTS))
        sigmas = ukf.sigma_points(x, np.linalg.cholesky(P + 1e-8 * np.eye(states)), weights)
        found = ukf.update(sigmas, h(sigmas), z, r, weights)
        x, P = found.x, found.P
        assert np.array_equal(P[0], P[0].T)
        assert np.linalg.eigvalsh(P[0])[0] > 0
    np.testing.assert_allclose(x, truth, atol=0.01)


@st.composite
def linear_problems(draw: st.DrawFn) -> tuple[FloatArray, ...]:
    """(x, P, H, z, r) of a batch of two filters with a linear measurement."""
    states, measurements = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-4, 1.0, 100.0]))
    return (
        rng.normal(size=(2, states)),
        np.stack([covariance(rng, states, scale) for _ in range(2)]),
        rng.normal(size=(measurements, states)),
        rng.normal(size=(2, measurements)),
        rng.uniform(0.01, 1.0, (2, measurements)),
    )


def kalman(
    x: FloatArray, P: FloatArray, H: FloatArray, z: FloatArray, r: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The textbook's update in Joseph's form."""
    S = H @ P @ H.T + np.diag(r)
    K = np.linalg.solve(S, H @ P).T
    y = z - H @ x
    A = np.eye(len(x)) - K @ H
    return x + K @ y, A @ P @ A.T + K @ np.diag(r) @ K.T


def assert_is_kalmans(found: ukf.Posterior, problem: tuple[FloatArray, ...]) -> None:
    x, P, H, z, r = problem
    for i in range(2):
        expected_x, expected_P = kalman(x[i], P[i], H, z[i], r[i])
        np.testing.assert_allclose(found.x[i], expected_x, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.P[i], expected_P, rtol=1e-6, atol=1e-8)


@given(linear_problems(), st.sampled_from(SETTINGS[:3]))
def test_with_a_linear_measurement_the_update_is_the_kalman_filters(
    problem: tuple[FloatArray, ...], settings: Settings
) -> None:
    x, P, H, z, r = problem
    weights = ukf.merwe_weights(x.shape[1], *settings)
    sigmas = ukf.sigma_points(x, np.linalg.cholesky(P), weights)
    assert_is_kalmans(ukf.update(sigmas, sigmas @ H.T, z, r, weights), problem)


@given(linear_problems(), st.sampled_from([0.1, 1.0]), st.floats(-2, 2))
def test_with_a_linear_measurement_it_does_not_matter_where_it_is_linearised(
    problem: tuple[FloatArray, ...], narrower: float, shift: float
) -> None:
    x, P, H, z, r = problem
    weights = ukf.merwe_weights(x.shape[1])
    sigmas = ukf.sigma_points(x + shift, np.linalg.cholesky(narrower * P), weights)
    line = ukf.linearise(sigmas, sigmas @ H.T, weights)
    y = z - line.z_hat - line.along(x)
    found = ukf.line_update(x, np.linalg.inv(P), line.H_t, y, r + line.unexplained)
    assert_is_kalmans(found, problem)


@given(linear_problems(), st.sampled_from(SETTINGS))
def test_sigma_points_have_the_mean_and_covariance_they_were_drawn_from(
    problem: tuple[FloatArray, ...], settings: Settings
) -> None:
    x, P = problem[:2]
    alpha, beta, kappa = settings
    weights = ukf.merwe_weights(x.shape[1], alpha, beta, max(kappa, 0.0))
    sigmas = ukf.sigma_points(x, np.linalg.cholesky(P), weights)
    mean, std = ukf.unscented_moments(sigmas, weights)
    np.testing.assert_allclose(mean, x, atol=1e-8)
    np.testing.assert_allclose(std**2, np.diagonal(P, axis1=1, axis2=2), rtol=1e-6)
    deviation = sigmas - x[:, None]
    spread = np.einsum("k,bki,bkj->bij", weights.covariance, deviation, deviation)
    np.testing.assert_allclose(spread, P, rtol=1e-6, atol=1e-8 * P.max())


def test_a_second_linearisation_comes_closer_to_the_truth_of_a_curved_measurement() -> None:
    h, truth = curved(2), np.array([[1.0, -0.8]])
    x, P, r = np.zeros((1, 2)), np.eye(2)[None], np.full((1, MEASUREMENTS), 1e-4)
    weights, z = ukf.merwe_weights(2), h(truth)
    sigmas = ukf.sigma_points(x, np.linalg.cholesky(P), weights)
    first = ukf.update(sigmas, h(sigmas), z, r, weights)
    again = first
    for _ in range(4):
        sigmas = ukf.sigma_points(again.x, np.linalg.cholesky(again.P), weights)
        line = ukf.linearise(sigmas, h(sigmas), weights)
        y = z - line.z_hat - line.along(x)
        again = ukf.line_update(x, np.linalg.inv(P), line.H_t, y, r + line.unexplained)
    assert np.abs(again.x - truth).max() < 0.1 * np.abs(first.x - truth).max()
