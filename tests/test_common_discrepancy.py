"""The discrepancy of a trip is correlated along it, and its axes make that independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from common.discrepancy import correlation

FEW = settings(max_examples=40)
lengths = st.integers(2, 60)
shares = st.floats(0.01, 1.0)


@FEW
@given(lengths, shares)
def test_the_axes_give_back_the_stated_correlation(points: int, share: float) -> None:
    along = correlation(points, share)
    assert along.axes is not None
    i = np.arange(points)
    stated = np.exp(-np.abs(np.subtract.outer(i, i)) / (share * points))
    back = along.axes @ np.diag(along.variances) @ along.axes.T
    np.testing.assert_allclose(back, stated, atol=1e-12)
    np.testing.assert_allclose(along.axes.T @ along.axes, np.eye(points), atol=1e-12)
    assert (along.variances >= 0).all()


def test_without_a_length_of_correlation_each_point_is_a_surprise_of_its_own() -> None:
    along = correlation(7, 0.0)
    values = np.arange(7.0)
    assert along.axes is None
    np.testing.assert_array_equal(along.variances, np.ones(7))
    assert along.rotated(values) is values
    assert along.rotated_variance(values) is values


@FEW
@given(lengths, st.one_of(st.just(0.0), shares), st.floats(1e-3, 0.1), st.integers(0, 999))
def test_the_likelihood_along_the_axes_is_the_multivariate_normal(
    points: int, share: float, d: float, seed: int
) -> None:
    noise, e = 0.01, np.random.default_rng(seed).normal(0, 0.03, points)
    i = np.arange(points)
    C = np.eye(points)
    if share:
        C = np.exp(-np.abs(np.subtract.outer(i, i)) / (share * points))
    along = correlation(points, share)
    r = noise**2 + d**2 * along.variances
    found = -0.5 * (along.rotated(e) ** 2 / r + np.log(2 * np.pi * r)).sum()
    expected = multivariate_normal(np.zeros(points), noise**2 * np.eye(points) + d**2 * C)
    assert found == pytest.approx(expected.logpdf(e), rel=1e-8)


@FEW
@given(lengths, shares, st.integers(0, 999))
def test_a_diagonal_covariance_turns_with_the_values(points: int, share: float, seed: int) -> None:
    variances = np.random.default_rng(seed).uniform(0.1, 2.0, (3, points))
    along = correlation(points, share)
    assert along.axes is not None
    expected = [np.diag(along.axes.T @ np.diag(v) @ along.axes) for v in variances]
    np.testing.assert_allclose(along.rotated_variance(variances), expected)
