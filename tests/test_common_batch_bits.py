"""A vehicle's revision does not depend on its company in the batch, to the last bit.

`twin-cloud reproduce` computes one vehicle alone what the worker computed among others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common import calibration
from common.bundle import Bundle, load_bundle
from common.calibration import Calibrated, Estimate, Settings
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.support_edge import aged_bundle

FLEET = Path(__file__).parent / "data" / "fleet_bundle"
VEHICLES = 24

# discrepancy_correlation, trip_std and point_std of the first parameter
KINDS = {
    "plain": (0.0, 0.0, 0.0),
    "trip": (0.0, 0.05, 0.01),
    "correlated": (0.2, 0.0, 0.0),
    "all": (0.2, 0.05, 0.01),
}


@dataclass(frozen=True)
class Fleet:
    """Vehicles that drift, jump, stand at a bound, have a bad sensor; traces of two lengths."""

    manifest: Manifest
    model: VoltageModel
    priors: list[Estimate]
    traces: list[TraceArrays]
    odometers: list[float]

    def calibrated(self, members: list[int]) -> list[Calibrated]:
        return calibration.calibrate(
            [self.priors[i] for i in members],
            [self.traces[i] for i in members],
            [self.odometers[i] for i in members],
            self.model,
            self.manifest,
            Settings(),
        )


def bits(found: Calibrated) -> tuple[object, ...]:
    """Everything that a revision carries of it; two floats that differ in their last bit differ."""
    estimate, own = found.estimate, found.estimate.discrepancy
    arrays = (estimate.theta, estimate.rate, estimate.covariance)
    numbers = (found.nis, found.error_before_v, found.error_after_v, estimate.odometer)
    learned = None if own is None else (own.std_v, own.trips)
    return *(array.tobytes() for array in arrays), numbers, found.finding, found.problem, learned


@cache
def bundles() -> dict[str, Bundle]:
    with TemporaryDirectory() as folder:
        return {"aged": aged_bundle(Path(folder)), "fleet": load_bundle(FLEET)}


@cache
def fleet(bundle_name: str, kind: str) -> Fleet:
    bundle = bundles()[bundle_name]
    correlation, trip_std, point_std = KINDS[kind]
    first, *others = bundle.manifest.parameters
    first = msgspec.structs.replace(first, trip_std=trip_std, point_std=point_std)
    manifest = msgspec.structs.replace(
        bundle.manifest,
        parameters=[first, *others],
        model_discrepancy_std_v=0.005,
        discrepancy_correlation=correlation,
    )
    model, rng = VoltageModel(bundle), np.random.default_rng(11)
    nominal = calibration.prior(manifest)
    priors, traces, odometers = [], [], []
    for i in range(VEHICLES):
        traces.append(_trace(bundle, model, i, rng))
        theta = nominal.theta.copy()
        theta[0] = first.upper - 1e-4 if i % 7 == 3 else theta[0] + rng.normal(0.0, 0.03)
        priors.append(
            replace(
                nominal,
                theta=theta,
                covariance=nominal.covariance * (1e-2 if i % 3 else 1.0),
                odometer=100.0 * i,
                growth=np.full(len(theta), 1e-6) if i % 2 else None,
            )
        )
        odometers.append(100.0 * i + float(rng.uniform(-10.0, 900.0)))
    return Fleet(manifest, model, priors, traces, odometers)


def _trace(
    bundle: Bundle, model: VoltageModel, index: int, rng: np.random.Generator
) -> TraceArrays:
    points = 31 if index % 5 == 2 else 50
    features = np.column_stack(
        [
            np.linspace(f.minimum, f.minimum + share * (f.maximum - f.minimum), points)
            for f, share in zip(bundle.manifest.features, rng.uniform(0.3, 0.6, 9), strict=False)
        ]
    )
    theta = np.array([p.nominal for p in bundle.manifest.parameters])
    theta[0] *= rng.choice([1.05, 1.1, 1.25, 0.8])
    voltage_v = model.predict(features, theta) + rng.normal(0.0, 0.01, points)
    if index % 11 == 5:
        voltage_v = voltage_v + 0.4 * np.where(np.arange(points) % 4 < 2, 1.0, -1.0)
    return TraceArrays(60.0 * np.arange(points), features, voltage_v)


@cache
def alone(bundle_name: str, kind: str) -> list[tuple[object, ...]]:
    made = fleet(bundle_name, kind)
    return [bits(made.calibrated([i])[0]) for i in range(VEHICLES)]


@pytest.mark.parametrize("bundle_name", ["aged", "fleet"])
@pytest.mark.parametrize("kind", KINDS)
@given(company=st.lists(st.integers(0, VEHICLES - 1), min_size=1, max_size=VEHICLES, unique=True))
@example(company=list(range(VEHICLES)))
@example(company=list(reversed(range(VEHICLES))))
@settings(max_examples=12)
def test_in_any_company_a_vehicle_gets_the_same_bits(
    bundle_name: str, kind: str, company: list[int]
) -> None:
    known = alone(bundle_name, kind)
    for index, found in zip(company, fleet(bundle_name, kind).calibrated(company), strict=True):
        assert bits(found) == known[index], f"vehicle {index} in a company of {len(company)}"


def test_the_fleet_of_this_test_meets_every_finding() -> None:
    made = fleet("aged", "correlated")
    findings = {found.finding for found in made.calibrated(list(range(VEHICLES)))}
    assert findings == {"drift", "changed_battery", "unexplained"}
