"""Each peer gives what its literature promises, where the answer is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.filterpy_ukf import filterpy_update
from bench.offline_loop import Breach, Method
from bench.science.mcmc import adaptive_metropolis, split_r_hat
from bench.science.methods.batch_map import batch_map, most_probable
from bench.science.methods.common_ground import (
    is_accepted,
    jacobian,
    residual_covariance,
    whitening,
    without_rates,
)
from bench.science.methods.least_squares import block_update, recursive_least_squares
from bench.science.methods.particles import particle_filter, resampled, systematic
from bench.science.methods.published import published, swept
from bench.science.posterior import (
    PosteriorCase,
    chains,
    filter_s_residuals,
    log_posterior,
    of_the_battery,
    posterior_figures,
)
from common.bundle import Bundle
from common.calibration import Estimate, prior
from common.model import VoltageModel
from tests.support_bench import breaching_trip, trip_at
from tests.support_edge import aged_bundle, linear_bundle

FloatArray = npt.NDArray[np.float64]

MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[1.0, 0.9], [0.9, 2.0]])


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return linear_bundle(tmp_path_factory.mktemp("linear"))


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def line(seed: int, points: int = 30) -> tuple[FloatArray, FloatArray]:
    """Slopes [m, 2] and noisy measurements [m] of the state (1, -2)."""
    rng = np.random.default_rng(seed)
    H = rng.normal(size=(points, 2))
    return H, H @ MEAN + rng.normal(0.0, 0.5, points)


def linear_map(H: FloatArray) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    return lambda x: (H @ x, H)


def closed_form(bundle: Bundle, trip: Any) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of the posterior of a linear bundle on one trace."""
    manifest, before = bundle.manifest, prior(bundle.manifest)
    image, H = jacobian(before.theta, trip.trace.features, VoltageModel(bundle), manifest)
    information = np.linalg.inv(residual_covariance(len(trip.trace.time_s), manifest))
    P = np.linalg.inv(np.linalg.inv(before.covariance[:2, :2]) + H.T @ information @ H)
    return before.theta + P @ H.T @ information @ (trip.trace.voltage_v - image), P


def test_recursive_least_squares_equals_batch_least_squares_on_a_line() -> None:
    x, P, r = np.zeros(2), np.diag([10.0, 10.0]), 0.25
    blocks = [line(seed) for seed in range(4)]
    for H, z in blocks:
        x, P = block_update(x, P, z, linear_map(H), r, forgetting=1.0, passes=1)
    H_all, z_all = np.concatenate([H for H, _ in blocks]), np.concatenate([z for _, z in blocks])
    information = np.diag([0.1, 0.1]) + H_all.T @ H_all / r
    assert x == pytest.approx(np.linalg.solve(information, H_all.T @ z_all / r))
    assert pytest.approx(np.linalg.inv(information)) == P


def test_what_is_forgotten_weighs_less_by_the_factor_for_every_block_since() -> None:
    x, P, r, forgetting = np.zeros(2), np.diag([10.0, 10.0]), 0.25, 0.5
    blocks = [line(seed) for seed in range(3)]
    for H, z in blocks:
        x, P = block_update(x, P, z, linear_map(H), r, forgetting, passes=1)
    weights = [forgetting ** (2 - k) for k in range(3)]
    information = forgetting**3 * np.diag([0.1, 0.1]) + sum(
        w * H.T @ H / r for w, (H, _) in zip(weights, blocks, strict=True)
    )
    right = sum(w * H.T @ z / r for w, (H, z) in zip(weights, blocks, strict=True))
    assert x == pytest.approx(np.linalg.solve(information, right))


@pytest.mark.parametrize("passes", [1, 3])
def test_on_a_line_a_second_pass_changes_nothing(passes: int) -> None:
    H, z = line(0)
    once = block_update(np.zeros(2), np.eye(2), z, linear_map(H), 0.25, 0.9, 1)[0]
    assert block_update(np.zeros(2), np.eye(2), z, linear_map(H), 0.25, 0.9, passes)[
        0
    ] == pytest.approx(once)


def test_the_particle_filter_on_a_line_is_near_the_kalman_filter() -> None:
    rng = np.random.default_rng(3)
    H, z = line(1, points=8)
    r, count = 4.0, 40_000
    particles = rng.multivariate_normal(MEAN + 0.3, COVARIANCE, count)

    def log_likelihood(states: FloatArray) -> FloatArray:
        found: FloatArray = -0.5 * ((states @ H.T - z) ** 2).sum(axis=1) / r
        return found

    found = resampled(particles, log_likelihood, 0.0, rng)
    gain = COVARIANCE @ H.T @ np.linalg.inv(H @ COVARIANCE @ H.T + r * np.eye(8))
    mean = MEAN + 0.3 + gain @ (z - H @ (MEAN + 0.3))
    kalman = COVARIANCE - gain @ H @ COVARIANCE
    assert found.mean(axis=0) == pytest.approx(mean, abs=0.03)
    assert np.cov(found.T) == pytest.approx(kalman, abs=0.03)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=50).filter(lambda w: sum(w) > 0.1))
def test_systematic_resampling_keeps_every_particle_as_often_as_it_weighs(w: list[float]) -> None:
    weights = np.array(w) / sum(w)
    chosen = systematic(weights, np.random.default_rng(0))
    counts = np.bincount(chosen, minlength=len(weights))
    assert counts.sum() == len(weights)
    assert np.all(np.abs(counts - len(weights) * weights) < 1.0 + 1e-9)


def test_roughening_widens_and_does_not_move() -> None:
    rng = np.random.default_rng(0)
    particles = rng.normal(size=(5000, 2))
    flat = resampled(particles, lambda x: np.zeros(len(x)), 0.0, np.random.default_rng(1))
    rough = resampled(particles, lambda x: np.zeros(len(x)), 5.0, np.random.default_rng(1))
    assert rough.std() > 1.05 * flat.std()
    assert rough.mean(axis=0) == pytest.approx(flat.mean(axis=0), abs=0.05)


def test_the_most_probable_of_a_linear_bundle_is_the_closed_form(linear: Bundle) -> None:
    trip = breaching_trip(linear, 0.0, gain=1.06)
    before = prior(linear.manifest)
    found = most_probable(
        before, before, [(0.0, trip.trace)], VoltageModel(linear), linear.manifest
    )
    mean, covariance = closed_form(linear, trip)
    assert found.theta == pytest.approx(mean, abs=1e-4)
    assert found.covariance[:2, :2] == pytest.approx(covariance, rel=1e-2)


def test_a_window_of_traces_finds_the_rate_between_them(aged: Bundle) -> None:
    """The gain grew by 0.04 over 4,000 km; the rate's own prior is opened for it."""
    model, manifest = VoltageModel(aged), aged.manifest
    seen = [
        (odometer, trip_at(aged, odometer, (1.0 + 1e-5 * odometer, 0.0)).trace)
        for odometer in (0.0, 2000.0, 4000.0)
    ]
    wide = prior(manifest)
    wide.covariance[2, 2] = 1e-9
    start = Estimate(wide.theta, wide.rate, wide.covariance, 4000.0)
    found = most_probable(start, start, seen, model, manifest)
    assert found.rate[0] == pytest.approx(1e-5, rel=0.05)
    assert found.theta[0] == pytest.approx(1.04, abs=0.002)


def test_the_batched_sweeps_are_filterpy_s(aged: Bundle) -> None:
    model = VoltageModel(aged)
    trips = [breaching_trip(aged, odometer, gain=1.1) for odometer in (0.0, 100.0)]
    theta = np.array([[1.0, 0.0], [1.05, 0.01]])
    x, P = swept(theta, [trip.trace for trip in trips], model, sweeps=5)
    for i, trip in enumerate(trips):
        x_peer, P_peer = filterpy_update(theta[i], trip.trace, model, sweeps=5)
        assert x[i] == pytest.approx(x_peer, abs=1e-7)
        assert P[i] == pytest.approx(P_peer, rel=1e-5)


METHODS: dict[str, Callable[[VoltageModel, Any], Method[Any]]] = {
    "published": published,
    "least squares": lambda model, m: recursive_least_squares(model, m, 0.5, 1),
    "particles": lambda model, m: particle_filter(model, m, 2000, 0.1),
    "batch": lambda model, m: batch_map(model, m, 2),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_peer_learns_a_battery_that_gives_less(aged: Bundle, name: str) -> None:
    model = VoltageModel(aged)
    method = METHODS[name](model, aged.manifest)
    trip = breaching_trip(aged, 500.0, gain=1.12)
    (made,) = method.update([Breach(trip.trace, 500.0, method.begin(prior(aged.manifest)))])
    assert made is not None
    found = method.estimate(made.state)
    assert found.theta[0] == pytest.approx(1.12, abs=0.03)
    assert found.odometer == 500.0
    assert 0.0 < found.covariance[0, 0] < prior(aged.manifest).covariance[0, 0]


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"particles"}))
def test_a_peer_that_would_leave_the_bounds_is_refused(aged: Bundle, name: str) -> None:
    """Thirty volts are no battery; the particles alone never leave where they were strewn."""
    model = VoltageModel(aged)
    method = METHODS[name](model, aged.manifest)
    trip = trip_at(aged, 500.0, (1.0, 30.0))
    (made,) = method.update([Breach(trip.trace, 500.0, method.begin(prior(aged.manifest)))])
    assert made is None


def test_a_proposal_is_judged_as_the_vehicle_would(aged: Bundle) -> None:
    model, manifest, before = VoltageModel(aged), aged.manifest, prior(aged.manifest)
    trace = breaching_trip(aged, 0.0, gain=1.1).trace

    def accepted(gain: float, offset: float = 0.0) -> bool:
        made = Estimate(np.array([gain, offset]), np.zeros(2), np.eye(4), 0.0)
        return is_accepted(made, before, trace, model, manifest)

    assert accepted(1.1)
    assert not accepted(0.9)
    assert not accepted(float("nan"))
    assert not is_accepted(
        Estimate(np.array([1.1, 0.6]), np.zeros(2), np.eye(4), 0.0),
        before,
        trip_at(aged, 0.0, (1.1, 0.6)).trace,
        model,
        manifest,
    )


def test_the_chain_finds_a_gaussian() -> None:
    precision = np.linalg.inv(COVARIANCE)

    def log_density(x: FloatArray) -> FloatArray:
        away = x - MEAN
        found: FloatArray = -0.5 * np.einsum("bi,ij,bj->b", away, precision, away)
        return found

    rng = np.random.default_rng(2)
    start = rng.normal(0.0, 5.0, (4, 2))
    first = np.tile(0.01 * np.eye(2), (4, 1, 1))
    samples = adaptive_metropolis(log_density, start, first, 12_000, rng)
    assert samples.shape == (6000, 4, 2)
    flat = samples.reshape(-1, 2)
    assert flat.mean(axis=0) == pytest.approx(MEAN, abs=0.12)
    assert np.cov(flat.T) == pytest.approx(COVARIANCE, abs=0.25)
    assert split_r_hat(samples) < 1.02


def test_chains_that_stay_apart_have_not_converged() -> None:
    samples = np.random.default_rng(0).normal(size=(1000, 4, 1))
    assert split_r_hat(samples) < 1.01
    assert split_r_hat(samples + np.array([0.0, 0.0, 0.0, 2.0])[:, None]) > 1.3


def test_a_chain_that_drifts_has_not_converged() -> None:
    drift = np.linspace(0.0, 3.0, 1000)[:, None, None]
    assert split_r_hat(np.random.default_rng(0).normal(size=(1000, 4, 1)) + drift) > 1.1


def test_the_chain_on_a_linear_bundle_is_the_closed_form(linear: Bundle) -> None:
    trip, manifest = breaching_trip(linear, 0.0, gain=1.06), linear.manifest
    before, model = prior(manifest), VoltageModel(linear)
    residuals = filter_s_residuals(trip.trace, before.theta, model, manifest)
    density = log_posterior(before, trip.trace, model, manifest, residuals)
    rng = np.random.default_rng(1)
    mean, covariance = closed_form(linear, trip)
    around = Estimate(mean, np.zeros(2), np.pad(covariance, (0, 2)), 0.0)
    samples = chains(around, density, manifest, 12_000, rng).reshape(-1, 2)
    std = np.sqrt(np.diag(covariance))
    assert (samples.mean(axis=0) - mean) / std == pytest.approx([0.0, 0.0], abs=0.1)
    assert samples.std(axis=0) == pytest.approx(std, rel=0.07)


def test_a_correlated_discrepancy_changes_the_posterior(linear: Bundle) -> None:
    trip, manifest = breaching_trip(linear, 0.0, gain=1.06), linear.manifest
    model, before, x = VoltageModel(linear), prior(manifest), np.array([[1.0, 0.02]])
    alone = filter_s_residuals(trip.trace, before.theta, model, manifest)
    one = log_posterior(before, trip.trace, model, manifest, alone)(x)
    other = log_posterior(before, trip.trace, model, manifest, alone + 1e-4)(x)
    assert float(one[0]) != pytest.approx(float(other[0]))


def test_a_whitened_residual_has_unit_covariance(linear: Bundle) -> None:
    correlated = msgspec.structs.replace(linear.manifest, discrepancy_correlation=0.3)
    for manifest in (linear.manifest, correlated):
        W, R = whitening(20, manifest), residual_covariance(20, manifest)
        assert pytest.approx(np.eye(20), abs=1e-9) == W @ R @ W.T


def test_what_one_trip_brought_of_its_own_is_not_the_battery_s(linear: Bundle) -> None:
    """x_t = x + e with equal variances: half of what the trip shows is the battery."""
    parameters = [
        msgspec.structs.replace(p, trip_std=p.prior_std) for p in linear.manifest.parameters
    ]
    manifest = msgspec.structs.replace(linear.manifest, parameters=parameters)
    before = prior(manifest)
    samples = np.tile(before.theta + np.array([0.04, 0.02]), (4000, 2, 1))
    found = of_the_battery(samples, before, manifest, np.random.default_rng(0)).reshape(-1, 2)
    assert found.mean(axis=0) == pytest.approx(before.theta + np.array([0.02, 0.01]), abs=0.003)
    assert found.std(axis=0) == pytest.approx([0.05 / 2**0.5] * 2, rel=0.05)


def test_our_filter_is_near_the_chain_on_a_linear_bundle(linear: Bundle) -> None:
    manifest = linear.manifest
    case = PosteriorCase(prior(manifest), breaching_trip(linear, 0.0, gain=1.04).trace)
    (found,) = posterior_figures([case], VoltageModel(linear), manifest, 12_000, seed=1)
    assert found["mean_distance"] < 0.15
    assert found["width_ratio"] == pytest.approx(1.0, abs=0.1)
    assert found["r_hat"] < 1.03


def test_a_method_without_rates_has_none_to_estimate(aged: Bundle) -> None:
    plain = without_rates(aged.manifest, 1e-7)
    assert all(p.rate_prior_std == 0.0 and p.process_noise == 1e-7 for p in plain.parameters)
