"""What made-up trips scatter by is found again; too few of them leave the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from cloud.training.trip_scatter import DISCREPANCY_FLOOR, MIN_TRIPS, with_trip_scatter
from common.bundle import Bundle
from common.discrepancy import correlation
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.support_edge import aged_bundle

FloatArray = npt.NDArray[np.float64]
TRIPS, POINTS, NOISE_V = 60, 40, 0.01


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"), model_discrepancy_std_v=0.001)


@dataclass(frozen=True)
class Made:
    """By how much made-up trips scatter, one standard deviation each."""

    trip: tuple[float, float] = (0.0, 0.0)
    gain_at_a_point: float = 0.0
    discrepancy_v: float = 0.0
    correlation: float = 0.0


def trips_of(
    bundle: Bundle, made: Made, count: int = TRIPS, centres: Sequence[float] = (1.0,)
) -> list[TraceArrays]:
    """Of vehicles with these gains in turn, at distances up to where the voltage is steep."""
    rng, model = np.random.default_rng(5), VoltageModel(bundle)
    along = correlation(POINTS, made.correlation)
    axes = np.eye(POINTS) if along.axes is None else along.axes
    trips = []
    for i in range(count):
        features = np.column_stack([np.linspace(0.0, 400.0, POINTS), np.full(POINTS, 500.0)])
        own = rng.normal(size=2) * made.trip
        theta = np.tile(np.array([centres[i % len(centres)], 0.0]) + own, (POINTS, 1))
        theta[:, 0] += rng.normal(0.0, made.gain_at_a_point, POINTS)
        shape = axes @ (np.sqrt(along.variances) * rng.normal(size=POINTS))
        error = made.discrepancy_v * shape + rng.normal(0.0, NOISE_V, POINTS)
        voltage_v = model.predict(features, theta) + error
        trips.append(TraceArrays(np.arange(float(POINTS)), features, voltage_v))
    return trips


def learned(
    bundle: Bundle, trips: Sequence[TraceArrays], vehicles: int = 1, given: Sequence[str] = ()
) -> Manifest:
    owners = [i % vehicles for i in range(len(trips))]
    return with_trip_scatter(bundle.manifest, VoltageModel(bundle), trips, owners, given)


def trip_stds(manifest: Manifest) -> list[float]:
    return [p.trip_std for p in manifest.parameters]


def within(factor: float, found: float, truth: float) -> bool:
    return truth / factor < found < truth * factor


def test_the_scatter_from_trip_to_trip_is_recovered(bundle: Bundle) -> None:
    found = learned(bundle, trips_of(bundle, Made(trip=(0.04, 0.02))))
    gain, offset = trip_stds(found)
    assert within(1.4, gain, 0.04)
    assert within(1.4, offset, 0.02)
    assert found.model_discrepancy_std_v < 0.004


def test_trips_that_do_not_scatter_show_next_to_none(bundle: Bundle) -> None:
    found = learned(bundle, trips_of(bundle, Made()))
    gain, offset = trip_stds(found)
    assert gain < 0.002
    assert offset < 0.0015
    assert found.discrepancy_correlation == 0.0
    floor_v = DISCREPANCY_FLOOR * found.measurement_noise_std_v
    assert floor_v <= found.model_discrepancy_std_v < 0.004


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_the_discrepancy_and_its_correlation_are_recovered(bundle: Bundle, share: float) -> None:
    made = Made(discrepancy_v=0.03, correlation=share)
    found = learned(bundle, trips_of(bundle, made))
    assert within(1.4, found.model_discrepancy_std_v, 0.03)
    if share:
        assert within(2.0, found.discrepancy_correlation, share)
    else:
        assert found.discrepancy_correlation == 0.0


def test_what_a_parameter_takes_at_one_point_is_recovered(bundle: Bundle) -> None:
    found = learned(bundle, trips_of(bundle, Made(gain_at_a_point=0.05)))
    assert within(1.3, found.parameters[0].point_std, 0.05)
    assert found.model_discrepancy_std_v < 0.01


def test_vehicles_that_differ_do_not_count_as_trips_that_differ(bundle: Bundle) -> None:
    trips = trips_of(bundle, Made(trip=(0.01, 0.0)), centres=(0.8, 1.0, 1.2))
    assert within(1.5, trip_stds(learned(bundle, trips, vehicles=3))[0], 0.01)
    assert trip_stds(learned(bundle, trips, vehicles=1))[0] > 0.05


def test_a_parameter_that_the_user_named_keeps_its_spread(bundle: Bundle) -> None:
    gain, offset = bundle.manifest.parameters
    named = msgspec.structs.replace(gain, trip_std=0.123)
    manifest = msgspec.structs.replace(bundle.manifest, parameters=[named, offset])
    trips = trips_of(bundle, Made(trip=(0.04, 0.02)))
    found = with_trip_scatter(manifest, VoltageModel(bundle), trips, [0] * TRIPS, ("gain",))
    assert trip_stds(found)[0] == 0.123
    assert within(1.4, trip_stds(found)[1], 0.02)


def test_a_discrepancy_of_trips_that_were_held_out_is_never_made_smaller(bundle: Bundle) -> None:
    """The network knows its training trips."""
    manifest = msgspec.structs.replace(bundle.manifest, model_discrepancy_std_v=0.02)
    trips = trips_of(bundle, Made())
    found = with_trip_scatter(manifest, VoltageModel(bundle), trips, [0] * TRIPS)
    assert found.model_discrepancy_std_v == 0.02


def test_too_few_trips_leave_the_manifest_as_it_is(bundle: Bundle) -> None:
    made = Made(trip=(0.04, 0.02))
    assert learned(bundle, trips_of(bundle, made, MIN_TRIPS - 1)) is bundle.manifest
    assert learned(bundle, trips_of(bundle, made, MIN_TRIPS)) != bundle.manifest


def test_only_what_trips_show_is_changed(bundle: Bundle) -> None:
    found = learned(bundle, trips_of(bundle, Made(trip=(0.04, 0.02))))
    parameters = [msgspec.structs.replace(p, trip_std=0.0, point_std=0.0) for p in found.parameters]
    same = msgspec.structs.replace(
        found, parameters=parameters, model_discrepancy_std_v=0.001, discrepancy_correlation=0.0
    )
    assert same == bundle.manifest
