"""Fisher information: what trips teach, and which direction they leave unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.training.identifiability import (
    LARGEST_CONDITION,
    FloatArray,
    after_many,
    knowledge,
    pairwise_correlation,
    trip_information,
    typical_trip,
    weakest_in_words,
)
from cloud.training.splits import TRIP_POINTS, TYPICAL_TRIPS, typical_rows

ONE_TRIP = np.zeros(50, np.intp)


def information(*columns: FloatArray, std_v: float = 0.02) -> FloatArray:
    one = trip_information(np.stack(columns, axis=1), ONE_TRIP, lambda rows: rows / std_v)
    return np.asarray(one[0])


def noise(seed: int, count: int = 1) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, 50))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_posterior_is_that_of_a_linear_filter(seed: int, size: int) -> None:
    columns = noise(seed, size)
    found = knowledge(information(*columns, std_v=3.0), range(size))
    expected = np.linalg.inv(np.eye(size) + columns @ columns.T / 9.0)
    covariance = found.correlation * np.outer(found.std, found.std)
    np.testing.assert_allclose(covariance, expected, atol=1e-10)


def test_what_trips_say_nothing_of_stays_at_its_prior() -> None:
    found = knowledge(information(noise(1)[0], np.zeros(50)), [0, 1])
    assert found.std[1] == pytest.approx(1.0)
    assert found.condition == LARGEST_CONDITION


def test_two_that_move_the_voltage_alike_are_known_as_their_sum_only() -> None:
    rows = noise(1)[0]
    found = knowledge(information(rows, rows), [0, 1])
    np.testing.assert_allclose(found.std, 0.5**0.5, rtol=1e-3)
    assert found.correlation[0, 1] == pytest.approx(-1.0, abs=1e-3)
    assert found.condition == found.collinearity == LARGEST_CONDITION
    assert "a and b trade off: the data fix their sum, of their difference 100 %" in (
        weakest_in_words(["a", "b"], found)
    )


def test_two_that_move_it_oppositely_are_known_as_their_difference_only() -> None:
    rows = noise(1)[0]
    found = knowledge(information(rows, -rows), [0, 1])
    assert "the data fix their difference, of their sum" in weakest_in_words(["a", "b"], found)


def test_a_weak_parameter_is_named_alone_and_more_than_two_as_one_combination() -> None:
    a, b, c = noise(2, 3)
    weak = knowledge(information(a, 1e-3 * b), [0, 1])
    assert weakest_in_words(["a", "b"], weak).startswith("least is learnt of b: ")
    three = knowledge(information(a, b, -a - b + 1e-3 * c), [0, 1, 2])
    told = weakest_in_words(["a", "b", "c"], three)
    assert "trade off: of one combination of them" in told
    assert all(name in told for name in "abc")


def test_collinearity_knows_neither_influence_nor_priors() -> None:
    a, b = noise(3, 2)
    plain, scaled = (knowledge(information(a, s * b), [0, 1]) for s in (1.0, 0.01))
    assert scaled.condition > 1000 * plain.condition
    assert scaled.collinearity == pytest.approx(plain.collinearity, rel=1e-6)


def test_each_two_are_judged_as_if_they_were_estimated_alone() -> None:
    found = information(*noise(4, 4), std_v=5.0)
    pairwise = pairwise_correlation(found, [3, 0, 2])
    assert pairwise[0, 1] == pytest.approx(knowledge(found, [3, 0]).correlation[0, 1])
    assert pairwise[2, 1] == pytest.approx(knowledge(found, [2, 0]).correlation[0, 1])
    np.testing.assert_array_equal(np.diagonal(pairwise), 1.0)


def test_each_trip_is_weighed_by_itself_and_ten_are_ten_times_their_mean() -> None:
    trip = np.repeat([0, 1], [10, 40])
    found = trip_information(np.ones((50, 1)), trip, lambda rows: 10 * rows / len(rows) ** 0.5)
    np.testing.assert_allclose(found[:, 0, 0], 100.0)
    np.testing.assert_allclose(after_many(found), 1000.0)


def test_the_typical_trip_teaches_a_median_amount() -> None:
    assert typical_trip(np.array([9.0, 1.0, 4.0])[:, None, None] * np.eye(2)) == 2


def test_typical_rows_are_whole_trips_thinned_with_both_ends() -> None:
    trip = np.repeat(np.arange(30), 120)
    voltage_v = np.linspace(4.0, 3.0, len(trip))
    rows = typical_rows(trip, voltage_v, np.random.default_rng(0))
    kept, counts = np.unique(trip[rows], return_counts=True)
    assert len(kept) == TYPICAL_TRIPS
    assert (counts <= TRIP_POINTS).all()
    assert (counts >= TRIP_POINTS - 5).all()
    for number in kept:
        own = rows[trip[rows] == number]
        assert (own[0], own[-1]) == (number * 120, number * 120 + 119)
    few = typical_rows(np.repeat([0, 1], 7), voltage_v, np.random.default_rng(0))
    np.testing.assert_array_equal(few, np.arange(14))
