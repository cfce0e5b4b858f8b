"""A trip is followed sample by sample, thinned at its end, and never spoilt by what was refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import calibration
from common.bundle import Bundle
from common.calibration import Settings
from common.model import VoltageModel
from common.thinning import chosen_rows, thin
from common.trace import TraceArrays
from common.trip_band import Z95
from edge_agent.errors import RefusedSampleError
from edge_agent.samples import Sample
from edge_agent.trips.trip_monitor import TripMonitor, Twin
from edge_agent.trips.trip_values import TripResult
from tests.support_edge import START, aged_bundle, drive


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def twin(bundle: Bundle, rate: float = 0.0, gain: float = 1.0) -> Twin:
    estimate = calibration.prior(bundle.manifest)
    changed = replace(estimate, theta=np.array([gain, 0.0]), rate=np.array([rate, 0.0]))
    return Twin(bundle.manifest, VoltageModel(bundle), changed, 3, Settings())


def followed(
    bundle: Bundle, samples: list[Sample], runs: Twin | None = None
) -> tuple[TripMonitor, TripResult, int]:
    """(monitor, result, how many samples were refused)."""
    monitor = TripMonitor("t", samples[0], runs or twin(bundle), 50)
    refused = 0
    for sample in samples:
        try:
            monitor.add(sample)
        except RefusedSampleError:
            refused += 1
    return monitor, monitor.finish(), refused


def test_the_error_is_the_mean_absolute_error_over_all_samples(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    samples = [
        replace(s, voltage_v=s.voltage_v + rng.normal(0, 0.05)) for s in drive(bundle, count=400)
    ]
    _, result, _ = followed(bundle, samples)
    rows = np.array([[s.signals["distance_km"], 500.0] for s in samples])
    measured = np.array([s.voltage_v for s in samples])
    predicted = VoltageModel(bundle).predict(rows, [1.0, 0.0])
    assert result.error_v == pytest.approx(np.abs(predicted - measured).mean(), rel=1e-6)
    np.testing.assert_allclose(result.feature_means, rows.mean(axis=0), rtol=1e-9)
    assert (result.samples, result.refused_samples, result.revision) == (400, 0, 3)
    assert result.started_at == START
    assert result.duration_s == 399 * 60.0
    assert (result.odometer_start, result.odometer_end) == (1000.0, 1300.0)
    assert len(result.thinned.trace.time_s) <= 50 + 5


def test_the_parameters_age_with_the_odometer_and_stay_as_they_were_at_the_start(
    bundle: Bundle,
) -> None:
    samples = list(drive(bundle, gain=1.1, odometer=100_000.0))
    _, aged, _ = followed(bundle, samples, twin(bundle, rate=1e-6))
    _, frozen, _ = followed(bundle, samples, twin(bundle))
    assert aged.error_v < 1e-4
    assert frozen.error_v > 0.05


def test_the_band_covers_what_was_measured_where_the_model_is_right(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    samples = [replace(s, voltage_v=s.voltage_v + rng.normal(0, 0.01)) for s in drive(bundle)]
    _, good, _ = followed(bundle, samples, twin(bundle, gain=1.1))
    assert good.coverage95 >= 0.9
    assert good.band95_v >= 1.96 * 0.01
    shifted = [replace(s, voltage_v=s.voltage_v - 1.0) for s in drive(bundle)]
    assert followed(bundle, shifted)[1].coverage95 == 0.0


def spoilt(sample: Sample, **signals: float) -> Sample:
    return replace(sample, signals={**sample.signals, **signals})


BAD: dict[str, Callable[[Sample], Sample]] = {
    "voltage NaN": lambda s: replace(s, voltage_v=math.nan),
    "voltage infinite": lambda s: replace(s, voltage_v=math.inf),
    "voltage implausible": lambda s: replace(s, voltage_v=5.1),
    "signal NaN": lambda s: spoilt(s, load_kg=math.nan),
    "signal implausible": lambda s: spoilt(s, load_kg=1e9),
    "signal missing": lambda s: replace(s, signals={"distance_km": 1.0}),
    "time not increasing": lambda s: replace(s, time_s=s.time_s - 60.0),
    "time NaN": lambda s: replace(s, time_s=math.nan),
    "time infinite": lambda s: replace(s, time_s=math.inf),
    "odometer backwards": lambda s: replace(s, odometer=s.odometer - 50.0),
    "odometer NaN": lambda s: replace(s, odometer=math.nan),
    "odometer infinite": lambda s: replace(s, odometer=math.inf),
}


@pytest.mark.parametrize("fault", sorted(BAD))
def test_a_refused_sample_is_counted_and_changes_nothing_else(bundle: Bundle, fault: str) -> None:
    good = list(drive(bundle))
    _, expected, none = followed(bundle, good)
    mixed = [*good[:30], BAD[fault](good[30]), *good[30:]]
    monitor, found, refused = followed(bundle, mixed)
    assert (none, refused, monitor.refused, found.refused_samples) == (0, 1, 1, 1)
    assert replace(found, thinned=expected.thinned, refused_samples=0) == expected
    np.testing.assert_array_equal(found.thinned.trace.features, expected.thinned.trace.features)


@pytest.mark.parametrize("ahead", ["time_s", "odometer"])
def test_a_refused_first_sample_is_no_beginning(bundle: Bundle, ahead: str) -> None:
    # Else: a duration below zero, which the cloud refuses for ever, or no sample taken at all.
    samples = list(drive(bundle))
    good, clean, _ = followed(bundle, samples)
    bad = replace(samples[0], voltage_v=0.0, **{ahead: getattr(samples[-1], ahead) + 100.0})
    monitor, result, refused = followed(bundle, [bad, *samples])
    assert refused == 1
    assert monitor.started_at == good.started_at
    assert (result.duration_s, result.samples) == (clean.duration_s, clean.samples)
    assert (result.odometer_start, result.error_v) == (clean.odometer_start, clean.error_v)


def test_the_band_is_that_of_the_calibration_at_every_sample(bundle: Bundle) -> None:
    runs = twin(bundle)
    samples = list(drive(bundle, count=200))
    monitor = TripMonitor("t", samples[0], runs, 50)
    found = [monitor.add(sample) for sample in samples]
    rows = np.array([one.row for one in found])
    predicted, std = calibration.voltage_band(
        monitor._estimate, rows, runs.model, runs.manifest, runs.settings
    )
    np.testing.assert_allclose([one.predicted_v for one in found], predicted, rtol=0, atol=1e-9)
    np.testing.assert_allclose([one.band95_v for one in found], Z95 * std, rtol=0, atol=1e-9)
    inside = np.abs(predicted - [s.voltage_v for s in samples]) <= Z95 * std
    result = monitor.finish()
    assert result.coverage95 == inside.mean()
    assert result.band95_v == pytest.approx(Z95 * std.mean())


def test_the_band_counts_every_sample_not_those_of_the_trace(bundle: Bundle) -> None:
    good = list(drive(bundle, count=2000))
    bad = [replace(s, voltage_v=s.voltage_v - 1.0) for s in good[500:700]]
    _, found, _ = followed(bundle, [*good[:500], *bad, *good[700:]], twin(bundle, gain=1.1))
    assert found.coverage95 == pytest.approx(0.9)
    assert found.thinned.error_v == pytest.approx(found.error_v, rel=0.2)


voltages = st.lists(st.floats(1.0, 5.0), min_size=2, max_size=300)


@given(voltages, st.integers(4, 60))
def test_thinning_keeps_both_ends_in_order_and_no_more_than_asked(
    voltage_v: list[float], points: int
) -> None:
    rows = chosen_rows(np.array(voltage_v), points)
    assert (rows[0], rows[-1]) == (0, len(voltage_v) - 1)
    assert (np.diff(rows) > 0).all()
    assert len(rows) <= points
    assert len(rows) >= min(points // 2, len(voltage_v))


def test_every_point_of_the_trace_is_one_of_the_trip() -> None:
    time_s = np.arange(500.0)
    trip = TraceArrays(time_s, np.column_stack([time_s, -time_s]), 4.0 - time_s / 1000)
    thinned = thin(trip, 50)
    rows = thinned.time_s.astype(int)
    np.testing.assert_array_equal(thinned.features, trip.features[rows])
    np.testing.assert_array_equal(thinned.voltage_v, trip.voltage_v[rows])


def test_the_steep_end_of_a_discharge_keeps_more_points() -> None:
    share = np.linspace(0.0, 1.0, 1000)
    rows = chosen_rows(4.0 - 0.2 * share - 1.8 * share**30, 50)
    steep, flat = (rows >= 900).sum(), ((rows >= 400) & (rows < 500)).sum()
    assert steep > 3 * flat
    assert flat >= 2


def test_noise_does_not_count_as_travel() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 1000)
    share = np.linspace(0.0, 1.0, 1000)
    rows = chosen_rows(4.0 - 2.0 * (share > 0.95) * (share - 0.95) / 0.05 + noise, 50)
    assert (rows >= 945).sum() >= 10


def test_one_odometer_that_ran_ahead_costs_three_samples_not_the_rest_of_the_trip(
    bundle: Bundle,
) -> None:
    good = list(drive(bundle))
    glitch = replace(good[30], odometer=900_000.0, time_s=good[30].time_s - 1.0)
    _, found, refused = followed(bundle, [*good[:30], glitch, *good[30:]])
    assert (refused, found.samples) == (3, len(good) + 1 - 3)
    assert found.odometer_end == good[-1].odometer


def test_an_odometer_before_the_trips_start_is_never_believed(bundle: Bundle) -> None:
    good = list(drive(bundle))
    behind = [replace(sample, odometer=1.0) for sample in good[30:]]
    _, found, refused = followed(bundle, [*good[:30], *behind])
    assert (refused, found.odometer_end) == (len(behind), good[29].odometer)
