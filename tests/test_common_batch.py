"""Many vehicles at once are each computed as if alone, and cost no more than that."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from common import calibration
from common.alignment import aligned
from common.batch import batch_of, estimates_of, extrapolated, with_active
from common.bundle import Bundle
from common.calibration import Calibrated, Estimate, Settings
from common.layout import layout_of
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.support_calibration import EXACT, assert_sound, rows, slopes, wide_manifest
from tests.support_edge import aged_bundle, manifest_of

FloatArray = npt.NDArray[np.float64]
AGED = manifest_of(b"")
OWN = wide_manifest(trip_std=(0.05, 0.05))


class _Counting:
    """The model, counting the rows that it is asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self.model, self.rows = VoltageModel(bundle), 0

    def predict_crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        self.rows += features.shape[0] * features.shape[1] * parameters.shape[1]
        return self.model.predict_crossed(features, parameters)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def trace_of(bundle: Bundle, gain: float, seed: int) -> TraceArrays:
    features = np.column_stack([np.linspace(0.0, 300.0, 50), np.full(50, 500.0)])
    noise = np.random.default_rng(seed).normal(0.0, 0.01, 50)
    voltage_v = VoltageModel(bundle).predict(features, [gain, 0.0]) + noise
    return TraceArrays(60.0 * np.arange(50), features, voltage_v)


def mixed(bundle: Bundle) -> tuple[list[Estimate], list[TraceArrays]]:
    """What settles at once, drifts, jumps, was another battery, is stuck, and no battery at all."""
    traces = [trace_of(bundle, gain, i) for i, gain in enumerate([1.1, 1.12, 1.25, 0.8, 1.1, 1.1])]
    stuck = traces[4].voltage_v.copy()
    stuck[20:] = stuck[20]
    traces[4] = replace(traces[4], voltage_v=stuck)
    swing = 0.4 * np.where(np.arange(50) % 4 < 2, 1.0, -1.0)
    traces[5] = replace(traces[5], voltage_v=traces[5].voltage_v + swing)
    at = replace(calibration.prior(bundle.manifest), theta=np.array([1.1, 0.0]))
    return [replace(at, covariance=1e-2 * at.covariance)] * len(traces), traces


def calibrated(
    bundle: Bundle, priors: list[Estimate], traces: list[TraceArrays], model: _Counting
) -> list[Calibrated]:
    return calibration.calibrate(
        priors,
        traces,
        [100.0] * len(traces),
        cast("VoltageModel", model),
        bundle.manifest,
        Settings(),
    )


def test_in_any_company_a_vehicle_ends_as_alone_and_costs_the_same(bundle: Bundle) -> None:
    """Also where some settle early, some need shorter steps, and some have their prior opened."""
    priors, traces = mixed(bundle)
    model = _Counting(bundle)
    together = calibrated(bundle, priors, traces, model)
    found = {one.finding for one in together}
    assert found == {"drift", "changed_battery", "unexplained"}
    rows_together, model.rows = model.rows, 0
    alone = [calibrated(bundle, [p], [t], model)[0] for p, t in zip(priors, traces, strict=True)]
    assert rows_together == model.rows
    for one, other in zip(together, alone, strict=True):
        assert (one.finding, one.problem) == (other.finding, other.problem)
        np.testing.assert_allclose(one.estimate.theta, other.estimate.theta, atol=1e-6)
        np.testing.assert_allclose(one.estimate.covariance, other.estimate.covariance, rtol=1e-3)
        assert one.nis == pytest.approx(other.nis, rel=1e-4)
        assert one.error_before_v == pytest.approx(other.error_before_v, abs=1e-6)
        assert one.error_after_v == pytest.approx(other.error_after_v, abs=1e-6)
        assert one.estimate.discrepancy is None or other.estimate.discrepancy is not None


def some(manifest_prior: Estimate, count: int) -> list[Estimate]:
    rng = np.random.default_rng(7)
    return [
        replace(
            manifest_prior,
            theta=manifest_prior.theta + rng.normal(0.0, 0.02, 2),
            rate=np.array([1e-6 * i, 0.0]),
            odometer=100.0 * i,
            growth=np.array([1e-6 * i, 0.0]) if i % 2 else None,
        )
        for i in range(count)
    ]


def test_each_vehicle_is_extrapolated_over_its_own_distance_with_its_own_growth() -> None:
    before = some(calibration.prior(AGED), 4)
    odometers = [5000.0, 50.0, 200.0, 9000.0]  # the second would grow younger, the third stands
    there = extrapolated(batch_of(before, AGED), np.array(odometers), AGED)
    for one, start, odometer in zip(
        estimates_of(there, before, AGED), before, odometers, strict=True
    ):
        alone = calibration.extrapolate(start, AGED, odometer)
        np.testing.assert_allclose(one.theta, alone.theta, rtol=1e-14)
        np.testing.assert_allclose(one.rate, alone.rate, rtol=1e-14)
        np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-12)
        assert one.odometer == alone.odometer == max(odometer, start.odometer)
        assert one.growth is start.growth


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_several_first_samples_align_a_trip_as_one_kalman_update(samples: int) -> None:
    features = rows(40)[:samples]
    before = some(calibration.prior(OWN), 3)
    off_v = np.array([0.0, 0.03, -0.02])
    measured = np.stack(
        [EXACT.predict(features, e.theta) + v for e, v in zip(before, off_v, strict=True)]
    )
    batch = batch_of(before, OWN)
    trips = aligned(batch, np.stack([features] * 3), measured, EXACT, OWN)
    H, R = slopes(features), (0.01**2 + 0.005**2) * np.eye(samples)
    for i, trip in enumerate(estimates_of(trips, before, OWN)):
        P = before[i].covariance[:2, :2] + 0.05**2 * np.eye(2)
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
        expected = before[i].theta + K @ np.full(samples, off_v[i])
        np.testing.assert_allclose(trip.theta, expected, atol=1e-9)
        np.testing.assert_allclose(trip.covariance[:2, :2], P - K @ H @ P, atol=1e-12)


def test_a_trip_that_needs_more_passes_moves_no_other(bundle: Bundle) -> None:
    gain, offset = bundle.manifest.parameters
    own = msgspec.structs.replace(gain, trip_std=0.3)
    manifest = msgspec.structs.replace(bundle.manifest, parameters=[own, offset])
    model, start = VoltageModel(bundle), np.array([[250.0, 500.0]])
    before = [calibration.prior(manifest)] * 2
    true_v = [model.predict(start, [1.0 + shift, 0.0]) for shift in (0.3, 0.03)]
    first = np.stack([start] * 2), np.stack(true_v)
    together = estimates_of(
        aligned(batch_of(before, manifest), *first, model, manifest), before, manifest
    )
    for trip, estimate, voltage_v in zip(together, before, true_v, strict=True):
        alone = calibration.align(estimate, start[0], float(voltage_v[0]), model, manifest)
        np.testing.assert_allclose(trip.theta, alone.theta, rtol=1e-12)


def test_a_manifest_is_laid_out_once_and_another_one_anew() -> None:
    manifest = wide_manifest()
    assert layout_of(manifest) is layout_of(manifest)
    other = wide_manifest(trip_std=(0.0, 0.05))
    assert layout_of(other).trip_variances.tolist() == [0.0, 0.05**2]
    assert layout_of(manifest).trip_variances.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wanted", [-1e9, 1e9])
def test_wherever_a_filter_wants_to_go_the_trips_of_the_battery_are_sound(wanted: float) -> None:
    """Far beyond a bound the map has no slope left: a battery is held within reach before."""
    before = [calibration.prior(OWN)]
    start = batch_of(before, OWN)
    active = layout_of(OWN).active
    x, P = start.x[:, active], start.P[:, active[:, None], active]
    x[0, 0] = wanted
    found = with_active(start, x, P, OWN)
    trips = aligned(found, rows(1)[None], np.array([[4.0]]), EXACT, OWN)
    (trip,) = estimates_of(trips, before, OWN)
    assert_sound(trip, OWN)
