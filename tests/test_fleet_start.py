"""A vehicle that joins a known fleet needs fewer updates than one that joined an unknown one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest

from common.bundle import Bundle, load_bundle
from common.calibration import Settings, aligned_error_v, extrapolate, prior
from common.calibrator import Case, MakeRevision, decide
from common.estimate import Estimate
from common.fleet_learning import History, learn
from common.fleet_prior import FleetPrior, growth_at, start
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.cloud_doubles import write_bundle

TRIPS, TRIP_KM, POINTS = 100, 320.0, 40
RATE_PER_KM, GROWTH_PER_KM = 3e-6, 1e-4


@dataclass(frozen=True)
class Driven:
    """What one vehicle brought: the estimates of its updates, and the error of each trip."""

    estimates: list[Estimate]
    errors_v: list[float]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_bundle(tmp_path_factory.mktemp("start")))


def manifest_of(bundle: Bundle) -> Manifest:
    """Batteries that age twentyfold: the rate may be larger than the tiny bundle's."""
    gain, offset = bundle.manifest.parameters
    gain = msgspec.structs.replace(gain, rate_prior_std=2e-5, rate_process_noise=1e-13)
    return msgspec.structs.replace(
        bundle.manifest, parameters=[gain, offset], error_threshold_v=0.02
    )


def drive(number: int, bundle: Bundle, fleet: FleetPrior | None) -> Driven:
    """A vehicle from new; its rate is within a few percent of every other's."""
    manifest, model = manifest_of(bundle), VoltageModel(bundle)
    known = start(fleet, manifest, 0.0) if fleet else prior(manifest)
    found = Driven([], [])
    for odometer, trace in _trips(number, model):
        there = extrapolate(known, manifest, odometer)
        found.errors_v.append(aligned_error_v(there, trace, model, manifest))
        if found.errors_v[-1] <= manifest.error_threshold_v:
            continue
        [made] = decide([Case(trace, odometer, known, known)], model, manifest, Settings())
        if isinstance(made, MakeRevision):
            known = made.calibrated.estimate
            if fleet:
                known = replace(known, growth=growth_at(fleet, odometer))
            found.estimates.append(known)
    return found


def _trips(number: int, model: VoltageModel) -> Iterator[tuple[float, TraceArrays]]:
    draw = np.random.default_rng(number)
    rate = RATE_PER_KM * draw.normal(1.0, 0.03)
    for trip in range(TRIPS):
        odometer = TRIP_KM * trip
        gain = 1.0 + rate * np.expm1(GROWTH_PER_KM * odometer) / GROWTH_PER_KM
        end_km = draw.uniform(280.0, 330.0)
        features = np.column_stack([np.linspace(0.0, end_km, POINTS), np.full(POINTS, 5100.0)])
        voltage = model.predict(features, [gain, 0.0]) + draw.normal(0.0, 0.01, POINTS)
        yield odometer, TraceArrays(np.linspace(0.0, 15000.0, POINTS), features, voltage)


def test_car_101_needs_fewer_updates_than_car_1_and_errs_as_little(bundle: Bundle) -> None:
    first = [drive(number, bundle, None) for number in range(1, 9)]
    histories = [History(car.estimates, is_from_new=True) for car in first]
    fleet = learn(histories, manifest_of(bundle), bundle="b" * 64, version=1, made_at=0.0)
    later = [drive(number, bundle, fleet) for number in range(101, 107)]
    before = np.mean([len(car.estimates) for car in first])
    after = np.mean([len(car.estimates) for car in later])
    assert before >= 5
    assert after <= 0.6 * before
    errors_v = [np.mean([car.errors_v for car in cars]) for cars in (first, later)]
    assert errors_v[1] <= 1.05 * errors_v[0]
