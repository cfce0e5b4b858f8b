"""Ageing is integrated exactly, in one step or in many, over any distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson
from scipy.linalg import expm

from common import calibration
from common.ageing import MAX_EXPONENT, AgeingLaw, law_of, transition, wandered
from common.manifest import Parameter
from tests.support_edge import manifest_of

FloatArray = npt.NDArray[np.float64]
FEW = settings(max_examples=40)

exponents = st.one_of(st.just(0.0), st.floats(-9.0, 0.0).map(lambda p: 10.0**p), st.floats(1.0, 3))
distances = st.floats(-2.0, 5.0).map(lambda power: 10.0**power)
volatilities = st.sampled_from([0.0, 1e-3, 1e-2])
rates = st.sampled_from([0.0, 1e-6, -3e-6, 2e-5])


def law(growth: float, volatility: float, *, rate_noise: float = 1e-15) -> AgeingLaw:
    """One parameter."""
    as_arrays = [np.array([v]) for v in (1e-9, rate_noise, volatility, growth)]
    return AgeingLaw(*as_arrays)


def integrated(made: AgeingLaw, rate: float, ds: float) -> tuple[FloatArray, FloatArray]:
    """F by the matrix exponential, Q by Simpson's rule over F's way to the end, 2 x 2."""
    growth, pieces = float(made.growth[0]), 200
    A = np.array([[0.0, 1.0], [0.0, growth]])
    s = np.linspace(0.0, ds, pieces + 1)
    piece = expm(A * ds / pieces)
    to_the_end = np.array([np.linalg.matrix_power(piece, pieces - k) for k in range(pieces + 1)])
    mean_rate = rate * np.exp(growth * s)
    density = np.zeros((len(s), 2, 2))
    density[:, 0, 0] = made.process_noise[0]
    density[:, 1, 1] = made.rate_process_noise[0] + (made.volatility[0] * mean_rate) ** 2
    Q = simpson(to_the_end @ density @ to_the_end.swapaxes(1, 2), x=s, axis=0)
    return expm(A * ds), np.asarray(Q)


@FEW
@given(exponents, distances, volatilities, rates)
def test_a_step_is_what_fine_integration_gives(
    exponent: float, ds: float, volatility: float, rate: float
) -> None:
    made = law(exponent / ds, volatility)
    F, Q = transition(made, np.array([rate]), ds)
    expected_F, expected_Q = integrated(made, rate, ds)
    np.testing.assert_allclose(F, expected_F, rtol=1e-9)
    np.testing.assert_allclose(Q, expected_Q, rtol=1e-7)


@FEW
@given(exponents, distances, st.floats(0.01, 0.99), volatilities, rates)
def test_two_steps_are_one(
    exponent: float, ds: float, share: float, volatility: float, rate: float
) -> None:
    made = law(exponent / ds, volatility)
    F, Q = transition(made, np.array([rate]), ds)
    first_F, first_Q = transition(made, np.array([rate]), share * ds)
    halfway = np.array([first_F[1, 1] * rate])
    second_F, second_Q = transition(made, halfway, ds - share * ds)
    np.testing.assert_allclose(second_F @ first_F, F, rtol=1e-9)
    np.testing.assert_allclose(second_F @ first_Q @ second_F.T + second_Q, Q, rtol=1e-7)


@FEW
@given(st.floats(-3.0, 9.0).map(lambda p: 10.0**p), st.floats(0.0, 1e3), volatilities, rates)
def test_the_noise_of_any_distance_is_a_covariance(
    ds: float, growth: float, volatility: float, rate: float
) -> None:
    F, Q = transition(law(growth, volatility), np.array([rate]), ds)
    assert np.isfinite(F).all()
    assert np.isfinite(Q).all()
    np.testing.assert_array_equal(Q, Q.T)
    std = np.sqrt(np.diag(Q))
    assert np.linalg.eigvalsh(Q / np.outer(std, std))[0] >= -1e-9


def test_the_rate_grows_no_further_than_growth_was_learned_on() -> None:
    F, _ = transition(law(1.0, 0.0), np.array([1e-6]), 1e6)
    assert F[1, 1] == pytest.approx(np.exp(MAX_EXPONENT))


def test_the_parameters_do_not_mix() -> None:
    made = AgeingLaw(
        np.array([1e-9, 2e-9]), np.array([1e-15, 0.0]), np.zeros(2), np.array([1e-5, 0.0])
    )
    F, Q = transition(made, np.array([1e-6, 0.0]), 1e4)
    alone_F, alone_Q = transition(law(1e-5, 0.0), np.array([1e-6]), 1e4)
    first, second = np.ix_([0, 2], [0, 2]), np.ix_([1, 3], [1, 3])
    np.testing.assert_allclose(F[first], alone_F)
    np.testing.assert_allclose(Q[first], alone_Q)
    np.testing.assert_allclose(F[second], [[1.0, 1e4], [0.0, 1.0]])
    np.testing.assert_allclose(Q[second], [[2e-5, 0.0], [0.0, 0.0]])
    assert (F[np.ix_([0, 2], [1, 3])] == 0).all()
    assert (Q[np.ix_([0, 2], [1, 3])] == 0).all()


@FEW
@given(exponents, distances, volatilities, rates, st.sampled_from([0.0, 1e-15]))
def test_a_wandering_path_has_the_same_mean_and_noise(
    exponent: float, ds: float, volatility: float, rate: float, rate_noise: float
) -> None:
    made = law(exponent / ds, volatility, rate_noise=rate_noise)
    F, Q = transition(made, np.array([rate]), ds)
    start = np.array([0.0, rate])
    mean, *pulled = wandered(made, np.tile(start, (3, 1)), ds, np.vstack([np.zeros(2), np.eye(2)]))
    np.testing.assert_allclose(mean, F @ start, rtol=1e-12)
    root = np.array(pulled).T - mean[:, None]
    std = np.sqrt(np.diag(Q))
    scale = np.where(std > 0, std, 1.0)
    np.testing.assert_allclose((root @ root.T - Q) / np.outer(scale, scale), 0, atol=1e-6)


def test_a_rate_that_is_left_out_has_no_noise_and_a_learned_growth_replaces_the_declared() -> None:
    parameters = (
        Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0, 1e-8, 1e-6, 1e-16, 0.01, 1e-6),
        Parameter("offset", "V", 0.0, 0.1, -0.5, 0.5, 1e-9, 0.0, 1e-16, 0.01, 1e-6),
    )
    manifest = manifest_of(b"", parameters)
    declared = law_of(manifest)
    np.testing.assert_array_equal(declared.process_noise, [1e-8, 1e-9])
    np.testing.assert_array_equal(declared.rate_process_noise, [1e-16, 0.0])
    np.testing.assert_array_equal(declared.volatility, [0.01, 0.0])
    np.testing.assert_array_equal(declared.growth, [1e-6, 1e-6])
    learned = np.array([3e-6, 0.0])
    assert law_of(manifest, learned).growth is learned
    estimate = replace(calibration.prior(manifest), rate=np.array([1e-6, 0.0]))
    grown = calibration.extrapolate(estimate, manifest, 1e5).rate[0]
    assert grown == pytest.approx(1e-6 * np.exp(0.1), rel=1e-9)
    faster = calibration.extrapolate(replace(estimate, growth=learned), manifest, 1e5).rate[0]
    assert faster == pytest.approx(1e-6 * np.exp(0.3), rel=1e-9)


@FEW
@given(st.floats(-3.0, 12.0).map(lambda p: 10.0**p), st.floats(-1e-3, 1e-3), st.floats(0.0, 1e3))
def test_an_absurd_distance_leaves_an_estimate_that_is_one(
    odometer: float, rate: float, growth: float
) -> None:
    manifest = manifest_of(b"")
    before = replace(
        calibration.prior(manifest), rate=np.array([rate, 0.0]), growth=np.array([growth, 0.0])
    )
    after = calibration.extrapolate(before, manifest, odometer)
    assert calibration.is_inside_bounds(after, manifest)
    assert calibration.is_positive_definite(after, manifest)
