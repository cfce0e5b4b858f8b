"""Sobol indices: those of known functions lie in their intervals, which narrow until they do."""

from __future__ import annotations

import numpy as np
import pytest
from SALib.analyze import sobol as salib_analysis
from SALib.sample import sobol as salib_sampling

from cloud.training.sobol import (
    RELATIVE_HALF_WIDTH,
    SMALLEST_HALF_WIDTH,
    Estimate,
    FloatArray,
    Indices,
    SobolSettings,
    sobol_indices,
)

CIRCLE = np.tile([-np.pi, np.pi], (3, 1))
# T. Ishigami, T. Homma, ISUMA 1990, with a = 7, b = 0.1; the variance in closed form.
A, B = 7.0, 0.1
PARTS = {
    (0,): 0.5 * (1 + B * np.pi**4 / 5) ** 2,
    (1,): A**2 / 8,
    (0, 2): B**2 * np.pi**8 * (1 / 18 - 1 / 50),
}
VARIANCE = sum(PARTS.values())
# I. M. Sobol', the G function: V_i = 1 / (3 (1 + a_i)²), variance Π (1 + V_i) − 1.
G = np.array([0.0, 1.0, 4.5, 9.0, 99.0])


def ishigami(x: FloatArray) -> FloatArray:
    value: FloatArray = np.sin(x[:, 0]) * (1 + B * x[:, 2] ** 4) + A * np.sin(x[:, 1]) ** 2
    return value


def sobol_g(x: FloatArray) -> FloatArray:
    value: FloatArray = ((np.abs(4 * x - 2) + G) / (1 + G)).prod(axis=1)
    return value


def unit(inputs: int) -> FloatArray:
    return np.tile([0.0, 1.0], (inputs, 1))


def require_inside(found: Estimate, truth: FloatArray, at: slice = slice(None)) -> None:
    wrong_by = np.abs(found.value[at] - truth)
    assert (wrong_by <= found.ci[at]).all(), (found.value[at], found.ci[at], truth)


@pytest.mark.parametrize("seed", range(5))
def test_the_indices_of_ishigamis_function_lie_in_their_intervals(seed: int) -> None:
    found = sobol_indices(ishigami, CIRCLE, [[0, 2], [1, 2]], SobolSettings(seed=seed))
    one, two, both = (part / VARIANCE for part in PARTS.values())
    require_inside(found.first, np.array([one, two, 0.0, one + both, two]))
    require_inside(found.total, np.array([one + both, two, both, one + both, two + both]))
    require_inside(found.pairs, np.array([[0, 0, both], [0, 0, 0], [0, 0, 0]]))


def test_the_indices_of_sobols_function_lie_in_their_intervals() -> None:
    found = sobol_indices(sobol_g, unit(5), [], SobolSettings())
    own = 1 / (3 * (1 + G) ** 2)
    variance = (1 + own).prod() - 1
    require_inside(found.first, own / variance)
    require_inside(found.total, own * (1 + own).prod() / (1 + own) / variance)
    require_inside(found.pairs, np.triu(np.outer(own, own), k=1) / variance)


def test_intervals_say_how_far_estimates_of_other_seeds_lie_apart() -> None:
    studies = [sobol_indices(ishigami, CIRCLE, [], SobolSettings(1024, seed)) for seed in range(20)]
    scatter = 1.96 * np.std([study.total.value for study in studies], axis=0)
    claimed = np.mean([study.total.ci for study in studies], axis=0)
    # The bootstrap takes the points for random ones; a Sobol sequence is better than that.
    assert (scatter < 1.2 * claimed).all()
    assert (claimed < 0.1).all()


def test_the_samples_double_until_the_intervals_are_narrow() -> None:
    found = sobol_indices(ishigami, CIRCLE, [], SobolSettings())
    allowed = max(RELATIVE_HALF_WIDTH * found.total.value.max(), SMALLEST_HALF_WIDTH)
    assert found.settled
    assert found.total.ci.max() <= allowed
    half = sobol_indices(ishigami, CIRCLE, [], SobolSettings(found.samples // 2))
    assert not half.settled
    assert half.samples == found.samples // 2
    assert half.total.ci.max() > allowed


def test_they_agree_with_salib() -> None:
    problem = {"num_vars": 3, "names": np.array(["a", "b", "c"], object), "bounds": CIRCLE.tolist()}
    points = salib_sampling.sample(problem, 4096, seed=1)
    theirs = salib_analysis.analyze(problem, ishigami(points), seed=1)
    ours = sobol_indices(ishigami, CIRCLE, [], SobolSettings(4096))
    for own, name in ((ours.first, "S1"), (ours.total, "ST")):
        assert (np.abs(own.value - theirs[name]) <= own.ci + theirs[f"{name}_conf"]).all()
    above = np.triu_indices(3, k=1)
    apart = np.abs(ours.pairs.value - theirs["S2"])[above]
    assert (apart <= (ours.pairs.ci + theirs["S2_conf"])[above]).all()


def same(one: Indices, other: Indices) -> bool:
    pairs = ((one.first, other.first), (one.total, other.total), (one.pairs, other.pairs))
    return all(np.array_equal(a.value, b.value) and np.array_equal(a.ci, b.ci) for a, b in pairs)


def test_the_same_seed_gives_the_same_indices_and_another_others() -> None:
    one, two, other = (
        sobol_indices(ishigami, CIRCLE, [[0, 1]], SobolSettings(256, seed)) for seed in (0, 0, 1)
    )
    assert same(one, two)
    assert not same(one, other)


def test_a_shift_and_a_scale_of_the_output_change_nothing() -> None:
    plain = sobol_indices(ishigami, CIRCLE, [], SobolSettings(512))
    volts = sobol_indices(lambda x: 400 + 1e-3 * ishigami(x), CIRCLE, [], SobolSettings(512))
    np.testing.assert_allclose(volts.total.value, plain.total.value, atol=1e-6)
    np.testing.assert_allclose(volts.first.value, plain.first.value, atol=1e-6)


def test_a_model_that_never_varies_has_no_indices() -> None:
    found = sobol_indices(lambda x: np.full(len(x), 3.7), CIRCLE, [[0, 1]], SobolSettings(256))
    assert found.settled
    assert not found.total.value.any()
    assert not found.first.value.any()


def test_an_input_with_an_empty_range_has_no_index() -> None:
    bounds = CIRCLE.copy()
    bounds[1] = 0.3
    found = sobol_indices(ishigami, bounds, [], SobolSettings(256))
    assert found.total.value[1] == 0.0
    assert found.total.value[0] > 0.5
