"""The fleet's prior: what a made-up fleet is made of comes out again, whatever one vehicle does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import extrapolate
from common.errors import MalformedMessageError, TooFewVehiclesError, UnknownSchemaError
from common.estimate import Discrepancy, Estimate, is_positive_definite
from common.fleet_learning import FLOOR_SHARE, History, learn
from common.fleet_prior import (
    FleetPrior,
    decode_prior,
    encode_prior,
    growth_at,
    reaches,
    standard_deviations,
    start,
)
from common.manifest import Feature, Manifest, Parameter, Target

FloatArray = npt.NDArray[np.float64]

MEAN_RATE = np.array([4e-6, -3e-6])
RATE_STD = np.array([1.0e-6, 0.8e-6])
CORRELATION = -0.9
LIFE_KM = 50_000.0


def manifest(**changes: float) -> Manifest:
    def gain(name: str) -> Parameter:
        made = Parameter(name, "1", 1.0, 0.1, 0.2, 5.0, 1e-10, 1e-5, 1e-15)
        return msgspec.structs.replace(made, **changes)

    return Manifest(
        schema=1,
        name="made-up",
        model_sha256="a" * 64,
        features=[Feature("distance_km", "km", 0.0, 500.0)],
        target=Target("voltage_v", "V", 1.0, 5.0),
        parameters=[gain("gain:distance"), gain("gain:output")],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=2.0,
        error_threshold_v=0.05,
    )


def rates(vehicles: int, seed: int) -> FloatArray:
    covariance = np.diag(RATE_STD**2)
    covariance[0, 1] = covariance[1, 0] = CORRELATION * RATE_STD.prod()
    return np.random.default_rng(seed).multivariate_normal(MEAN_RATE, covariance, vehicles)


def history(
    rate: FloatArray, seed: int, *, growth: float = 0.0, noise: float = 1e-4, revisions: int = 12
) -> History:
    """A battery whose parameters drift from 1 with `rate`, growing by `growth`, as it is seen."""
    draw = np.random.default_rng(seed)
    estimates = []
    for s in np.sort(draw.uniform(0.05, 1.0, revisions)) * LIFE_KM:
        distance = np.expm1(growth * s) / growth if growth else s
        estimates.append(
            Estimate(
                theta=1.0 + rate * distance + draw.normal(0.0, noise, 2),
                rate=rate * np.exp(growth * s),
                covariance=np.diag([noise**2] * 2 + [1e-14] * 2),
                odometer=float(s),
                discrepancy=Discrepancy(0.004, 5.0),
            )
        )
    return History(estimates, is_from_new=True)


def fleet(vehicles: int, seed: int = 1, **how: float) -> list[History]:
    return [history(rate, 100 * seed + i, **how) for i, rate in enumerate(rates(vehicles, seed))]  # type: ignore[arg-type]


def learned(histories: Sequence[History], version: int = 1) -> FleetPrior:
    return learn(histories, manifest(), bundle="b" * 64, version=version, made_at=5.0)


def middle(prior: FleetPrior) -> int:
    return len(prior.odometers) // 2


def correlation(prior: FleetPrior, node: int) -> float:
    P = start(prior, manifest(), prior.odometers[node]).covariance
    return float(P[0, 1] / np.sqrt(P[0, 0] * P[1, 1]))


def test_the_mean_course_of_a_fleet_is_found() -> None:
    prior = learned(fleet(60))
    s = np.array(prior.odometers)
    of_mean = 4 * RATE_STD / np.sqrt(60)
    assert np.all(np.abs(np.array(prior.theta) - 1.0 - MEAN_RATE * s[:, None]) <= of_mean * LIFE_KM)
    assert np.all(np.abs(np.array(prior.rate) - MEAN_RATE) <= of_mean + 2e-7)


def test_how_much_vehicles_differ_is_found_with_its_correlation() -> None:
    prior = learned(fleet(60))
    node = middle(prior)
    std = standard_deviations(prior)[node]
    wanted = np.concatenate([RATE_STD * prior.odometers[node], RATE_STD])
    assert np.all(np.abs(std / wanted - 1.0) < 0.3)
    assert correlation(prior, node) == pytest.approx(CORRELATION, abs=0.1)


def test_what_the_measurement_brings_is_no_difference_between_vehicles() -> None:
    """A tenth of it at most remains of a noise that is as large as the differences themselves."""
    node_std = []
    for noise in (1e-4, 0.02):
        prior = learned(fleet(60, noise=noise))
        node_std.append(standard_deviations(prior)[middle(prior)][:2])
    assert np.all(np.abs(node_std[1] / node_std[0] - 1.0) < 0.25)


def test_alike_vehicles_still_leave_room_for_another() -> None:
    """The floor, and what ten vehicles leave open of their mean."""
    std = standard_deviations(learned([history(MEAN_RATE, 7) for _ in range(10)]))
    floor = FLOOR_SHARE * np.array([0.1, 0.1, 1e-5, 1e-5])
    assert std == pytest.approx(np.tile(floor * np.sqrt(1.0 + 1.0 / 10), (len(std), 1)))


def test_few_vehicles_leave_a_wider_prior_than_many_that_are_as_different() -> None:
    few = [history(MEAN_RATE * f, 7) for f in (0.7, 1.0, 1.3)]
    many = few * 20
    assert np.all(standard_deviations(learned(few))[-1] > standard_deviations(learned(many))[-1])


def test_few_vehicles_that_meet_by_chance_are_not_taken_for_alike() -> None:
    """At the last age all four agree; how they differed on the way there still counts."""
    found = []
    for share in (-0.3, -0.1, 0.1, 0.3):
        s = np.linspace(0.1, 1.0, 10) * LIFE_KM
        apart = share * MEAN_RATE[0] * np.minimum(s, LIFE_KM - s)
        estimates = [
            Estimate(1.0 + MEAN_RATE * at + [off, 0.0], MEAN_RATE, 1e-8 * np.eye(4), float(at))
            for at, off in zip(s, apart, strict=True)
        ]
        found.append(History(estimates, is_from_new=True))
    std = standard_deviations(learned(found))
    assert std[-1, 0] > 3 * FLOOR_SHARE * 0.1


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(8)))
def test_the_order_of_the_vehicles_changes_not_one_byte(order: list[int]) -> None:
    vehicles = fleet(8)
    assert encode_prior(learned([vehicles[i] for i in order])) == encode_prior(learned(vehicles))


@pytest.mark.parametrize("factor", [-50.0, 30.0, 1e4])
def test_one_absurd_vehicle_does_not_move_the_fleet(factor: float) -> None:
    healthy = fleet(12)
    calm, stirred = learned(healthy), learned([*healthy, history(MEAN_RATE * factor, 99)])
    node = middle(calm)
    moved = np.array(stirred.theta[node]) - calm.theta[node]
    assert np.all(np.abs(moved) < standard_deviations(calm)[node][:2])
    assert np.all(standard_deviations(stirred)[node] < 2.5 * standard_deviations(calm)[node])


def test_a_vehicle_with_a_number_that_is_none_is_left_out() -> None:
    healthy = fleet(5)
    broken = replace(healthy[0].estimates[3], theta=np.array([np.nan, 1.0]))
    prior = learned([*healthy, History([*healthy[1].estimates, broken], is_from_new=True)])
    assert prior.vehicles == 5
    assert prior.theta == learned(healthy).theta


def test_growth_is_found_where_ageing_speeds_up() -> None:
    prior = learned(fleet(20, growth=3e-5))
    assert np.array(prior.growth) == pytest.approx(3e-5, rel=0.25)


def test_no_growth_is_seen_in_a_fleet_that_ages_steadily() -> None:
    found = [np.array(learned(fleet(20, seed=seed, noise=2e-3)).growth) for seed in range(1, 6)]
    assert np.mean(np.array(found) == 0.0) > 0.9
    assert np.mean(found) < 3e-7


def test_rates_from_a_growing_fleet_stand_at_the_nodes() -> None:
    """The slope at the first node is taken 1,100 km further on, where it is 3 % larger."""
    prior = learned(fleet(20, growth=3e-5, revisions=40, noise=1e-6))
    truth = rates(20, 1).mean(axis=0) * np.exp(3e-5 * np.array(prior.odometers))[:, None]
    assert np.array(prior.rate) == pytest.approx(truth, rel=0.06)
    assert np.array(prior.rate[0]) == pytest.approx(truth[0], rel=0.04)


@pytest.mark.parametrize("vehicles", [0, 1, 2])
def test_two_vehicles_are_no_fleet_and_that_is_said(vehicles: int) -> None:
    with pytest.raises(TooFewVehiclesError, match=f"{vehicles} vehicles have.*3 are needed"):
        learned(fleet(vehicles))


def test_the_grid_ends_where_three_vehicles_have_been() -> None:
    vehicles = fleet(6)
    ends = sorted(h.estimates[-1].odometer for h in vehicles)
    assert learned(vehicles).odometers[-1] == ends[-3]
    assert learned(vehicles).odometers[0] == 0.0


def test_a_fleet_that_was_bought_used_says_nothing_of_a_new_battery() -> None:
    used = [
        History([replace(e, odometer=e.odometer + 1e5) for e in h.estimates], is_from_new=False)
        for h in fleet(6)
    ]
    prior = learned(used)
    assert not reaches(prior, 0.0)
    assert reaches(prior, 130_000.0)


def test_a_start_is_what_the_prior_says_at_that_age() -> None:
    prior = learned(fleet(20, growth=3e-5))
    at = prior.odometers[3]
    begun = start(prior, manifest(), at)
    assert begun.odometer == at
    assert begun.theta.tolist() == pytest.approx(prior.theta[3])
    assert begun.rate.tolist() == pytest.approx(prior.rate[3])
    assert begun.growth is not None
    assert begun.growth.tolist() == pytest.approx(prior.growth[3])
    assert begun.discrepancy == Discrepancy(0.004, 0.0)


@given(st.floats(0.0, 4.0))
@settings(max_examples=30, deadline=None)
def test_a_start_can_always_be_calibrated(share: float) -> None:
    prior = learned(fleet(6, growth=3e-5))
    begun = start(prior, manifest(), share * LIFE_KM)
    assert is_positive_definite(begun, manifest())
    assert begun.covariance == pytest.approx(begun.covariance.T)
    assert begun.odometer == share * LIFE_KM


def test_beyond_the_oldest_vehicle_the_ageing_law_carries_on() -> None:
    prior = learned(fleet(10, growth=3e-5))
    end = prior.odometers[-1]
    far = start(prior, manifest(), end + 5000.0)
    wanted = extrapolate(start(prior, manifest(), end), manifest(), end + 5000.0)
    assert far.theta.tolist() == wanted.theta.tolist()
    assert np.all(np.diag(far.covariance) > np.diag(start(prior, manifest(), end).covariance))


def test_a_rate_that_the_manifest_leaves_out_stays_out() -> None:
    without = manifest(rate_prior_std=0.0)
    prior = learn(fleet(6), without, bundle="b" * 64, version=1, made_at=5.0)
    begun = start(prior, without, 10_000.0)
    assert begun.rate.tolist() == [0.0, 0.0]
    assert not begun.covariance[2:].any()
    assert is_positive_definite(begun, without)


def test_growth_between_the_nodes_is_interpolated() -> None:
    prior = learned(fleet(20, growth=3e-5))
    between = (prior.odometers[2] + prior.odometers[3]) / 2
    wanted = (np.array(prior.growth[2]) + prior.growth[3]) / 2
    assert growth_at(prior, between).tolist() == pytest.approx(wanted.tolist())


def test_a_prior_survives_its_bytes() -> None:
    prior = learned(fleet(6), version=3)
    assert decode_prior(encode_prior(prior)) == prior
    assert (prior.version, prior.made_at, prior.parameters) == (
        3,
        5.0,
        list(manifest().parameter_names),
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"odometers": [0.0, 0.0]}, "odometers must increase"),
        ({"theta": [[1.0, 1.0]]}, "theta does not fit"),
        ({"covariance": [[1.0]]}, "covariance does not fit"),
        ({"growth": [[0.0]]}, "growth does not fit"),
    ],
)
def test_a_prior_that_contradicts_itself_is_refused(changes: dict[str, object], why: str) -> None:
    prior = learned(fleet(6))
    broken = msgspec.structs.replace(prior, **changes)
    with pytest.raises(MalformedMessageError, match=why):
        decode_prior(encode_prior(broken))


def test_a_prior_of_a_later_schema_is_refused() -> None:
    with pytest.raises(UnknownSchemaError):
        decode_prior(encode_prior(msgspec.structs.replace(learned(fleet(6)), schema=2)))
