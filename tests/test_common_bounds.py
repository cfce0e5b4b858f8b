"""A parameter held by its bounds bends towards them, never reaches them, and loses nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import calibration
from common.batch import batch_of, estimates_of, with_active
from common.bounds import Bounds
from common.calibration import Estimate
from common.estimate import bounded_states, free_states, pack
from common.layout import layout_of
from tests.support_edge import manifest_of

FloatArray = npt.NDArray[np.float64]
FEW = settings(max_examples=60)
MANIFEST = manifest_of(b"")
LOWER, UPPER = np.array([0.5, -0.5]), np.array([2.0, 0.5])

lows = st.floats(-1e3, 1e3)
widths = st.floats(0.1, 1e3)
shares = st.floats(-5.0, 6.0)  # of the interval
# Near a bound as likely as in the middle.
inside = st.one_of(
    st.floats(0.01, 0.99),
    st.floats(-6.0, -2.0).map(lambda power: 10.0**power),
    st.floats(-6.0, -2.0).map(lambda power: 1.0 - 10.0**power),
)


def ends(low: float, width: float) -> tuple[FloatArray, FloatArray]:
    return np.array([low]), np.array([low + width])


@FEW
@given(lows, widths, st.floats(allow_nan=False))
def test_any_number_becomes_a_parameter_strictly_inside(
    low: float, width: float, number: float
) -> None:
    lower, upper = ends(low, width)
    theta = Bounds.between(lower, upper).bounded(np.array([number]))
    assert lower < theta < upper


@FEW
@given(lows, widths, st.floats(0.1, 0.9))
def test_a_tenth_away_from_the_bounds_it_is_the_number_itself(
    low: float, width: float, share: float
) -> None:
    lower, upper = ends(low, width)
    number = lower + share * width
    np.testing.assert_allclose(
        Bounds.between(lower, upper).bounded(number), number, atol=1e-6 * width
    )
    np.testing.assert_allclose(Bounds.between(lower, upper).slope(number), 1.0, atol=1e-4)


@FEW
@given(lows, widths, inside)
def test_there_and_back_is_the_parameter(low: float, width: float, share: float) -> None:
    lower, upper = ends(low, width)
    theta = lower + share * width
    back = Bounds.between(lower, upper).bounded(Bounds.between(lower, upper).free(theta))
    np.testing.assert_allclose(back, theta, atol=1e-9 * width, rtol=1e-12)


@FEW
@given(lows, widths, st.floats(-0.02, 1.02))
def test_back_and_there_is_the_number(low: float, width: float, share: float) -> None:
    """Within the reach: a fiftieth of the interval beyond a bound is ten widths."""
    lower, upper = ends(low, width)
    number = lower + share * width
    again = Bounds.between(lower, upper).free(Bounds.between(lower, upper).bounded(number))
    np.testing.assert_allclose(again, number, atol=1e-6 * width)


@FEW
@given(lows, widths, shares, shares)
def test_a_larger_number_is_a_larger_parameter(
    low: float, width: float, first: float, second: float
) -> None:
    lower, upper = ends(low, width)
    less, more = (lower + share * width for share in sorted([first, second]))
    a, b = Bounds.between(lower, upper).bounded(less), Bounds.between(lower, upper).bounded(more)
    assert a <= b
    in_reach = min([first, second]) > -0.02 and sorted([first, second])[1] < 1.02
    if in_reach and more - less > 1e-6 * width:
        assert a < b


@FEW
@given(lows, widths, st.floats(-0.02, 1.02))
def test_the_slope_is_the_numerical_derivative(low: float, width: float, share: float) -> None:
    lower, upper = ends(low, width)
    number, step = lower + share * width, 2e-6 * width
    up, down = (Bounds.between(lower, upper).bounded(number + s) for s in (step, -step))
    numerical = (up - down) / (2 * step)
    found = Bounds.between(lower, upper).slope(number)
    assert found > 0
    np.testing.assert_allclose(found, numerical, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("theta", [0.5, 2.0, -1e9, 1e9])
def test_a_parameter_on_or_beyond_a_bound_comes_back_just_inside(theta: float) -> None:
    gain = Bounds.between(LOWER[:1], UPPER[:1])
    number = gain.free(np.array([theta]))
    assert number == gain.reachable(number)
    back = float(gain.bounded(number)[0])
    assert 0.5 < back < 2.0
    assert abs(back - min(max(theta, 0.5), 2.0)) < 1e-6


def estimate_with(theta: FloatArray, seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    scale = np.array([0.1, 0.05, 1e-6])
    root = rng.normal(size=(3, 3)) * scale[:, None]
    covariance = np.zeros((4, 4))
    covariance[:3, :3] = root @ root.T + 0.01 * np.diag(scale**2)
    rate = np.array([rng.normal() * 1e-6, 0.0])
    return Estimate(theta, rate, covariance, 1234.5)


def bound(x: FloatArray, P: FloatArray, before: Estimate) -> Estimate:
    theta, rate, covariance = bounded_states(x, P, MANIFEST)
    return replace(before, theta=theta, rate=rate, covariance=covariance)


def unpacked(x: FloatArray, P: FloatArray, before: Estimate) -> Estimate:
    found = with_active(batch_of([before], MANIFEST), x, P, MANIFEST)
    return estimates_of(found, [before], MANIFEST)[0]


def assert_same(found: Estimate, expected: Estimate) -> None:
    np.testing.assert_allclose(found.theta, expected.theta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.rate, expected.rate, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-8, atol=0)
    assert found.odometer == expected.odometer


@FEW
@given(inside, inside, st.integers(0, 2**32 - 1))
def test_an_estimate_survives_the_way_through_free_numbers(
    gain: float, offset: float, seed: int
) -> None:
    before = estimate_with(LOWER + np.array([gain, offset]) * (UPPER - LOWER), seed)
    (x,), (P,) = free_states([before], MANIFEST)
    np.testing.assert_array_equal(P, P.T)
    assert_same(bound(x, P, before), before)
    x, P = pack([before], MANIFEST)
    assert x.shape[1] == len(layout_of(MANIFEST).active) == 3
    assert_same(unpacked(x, P, before), before)


def test_what_else_an_estimate_holds_is_kept() -> None:
    before = replace(estimate_with(np.array([1.1, 0.0]), 1), growth=np.array([1e-6, 0.0]))
    x, P = pack([before], MANIFEST)
    assert unpacked(x, P, before).growth is before.growth


@FEW
@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.floats(-1.0, 1.0))
def test_wherever_a_filter_wants_to_go_the_estimate_is_one(
    gain: float, offset: float, rate: float
) -> None:
    before = estimate_with(np.array([1.0, 0.0]), 2)
    (x,), (P,) = free_states([before], MANIFEST)
    x[:3] = gain, offset, rate
    after = bound(x, P, before)
    assert calibration.is_inside_bounds(after, MANIFEST)
    assert calibration.is_positive_definite(after, MANIFEST)
    np.testing.assert_array_equal(after.covariance, after.covariance.T)
    assert (after.theta > LOWER).all()
    assert (after.theta < UPPER).all()


def test_a_parameter_at_its_bound_has_less_room() -> None:
    """The delta method: the covariance of theta is that of u times the slope on both sides."""
    before = estimate_with(np.array([1.0, 0.0]), 3)
    (x,), (P,) = free_states([before], MANIFEST)
    x[0] = 0.5  # the bound itself: half the slope
    after = bound(x, P, before)
    assert after.covariance[0, 0] == pytest.approx(0.25 * before.covariance[0, 0], rel=1e-9)
    assert after.covariance[0, 1] == pytest.approx(0.5 * before.covariance[0, 1], rel=1e-9)
    assert after.rate[0] == pytest.approx(0.5 * before.rate[0], rel=1e-9)
