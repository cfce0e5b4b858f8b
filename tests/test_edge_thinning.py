"""A trip is thinned while it runs, in bounded memory, and says for certain what it leaves out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MalformedMessageError
from common.thinning import thin
from common.trace import TraceArrays, from_wire, to_wire, without
from edge_agent.trips import trip_record
from edge_agent.trips.trip_record import Thinned, TripRecord
from edge_agent.trips.trip_state import SAVED_BUCKETS
from tests.support_edge import aged_bundle

FloatArray = npt.NDArray[np.float64]
FEATURES = 2


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few enough buckets that a short trip fills them many times over."""
    monkeypatch.setattr(trip_record, "BUCKETS", 32)
    monkeypatch.setattr(trip_record, "FRESH_ROWS", 8)


def trip_of(count: int, seed: int, kind: str = "noisy") -> FloatArray:
    """Rows [count, time, two features, voltage, error], at uneven intervals."""
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(rng.uniform(0.05, 3.0, count)) - 0.05
    share = np.linspace(0.0, 1.0, count)
    voltage_v = 4.0 - 0.3 * share - 1.5 * share**20 + rng.normal(0, 0.01, count)
    error_v = np.abs(rng.normal(0, 0.02, count))
    if kind == "spikes":
        voltage_v[rng.integers(0, count, 3)] -= 1.0
        error_v[rng.integers(0, count, 3)] += 1.0
    return np.column_stack([time_s, 300.0 * share, rng.normal(15, 5, count), voltage_v, error_v])


def recorded(rows: FloatArray, record: TripRecord | None = None) -> TripRecord:
    record = record or TripRecord(FEATURES)
    for time_s, one, two, voltage_v, error_v in rows.tolist():
        record.add(time_s, [one, two], voltage_v, error_v)
    return record


def columns(trace: TraceArrays) -> FloatArray:
    return np.column_stack([trace.time_s, trace.features, trace.voltage_v])


def truly_within(rows: FloatArray, trace: TraceArrays) -> FloatArray:
    """How far the samples do lie from the trace's lines, by hand."""
    return np.array(
        [
            np.abs(np.interp(rows[:, 0], trace.time_s, kept) - measured).max()
            for kept, measured in zip(columns(trace).T[1:], rows.T[1:4], strict=True)
        ]
    )


def restarted(record: TripRecord) -> TripRecord:
    """The record that a checkpoint brings back."""
    table, stride = record.saved(SAVED_BUCKETS)
    again = TripRecord(FEATURES)
    again.restore(table, record.last, stride)
    return again


trips = st.builds(
    trip_of,
    st.integers(2, 700),
    st.integers(0, 1000),
    st.sampled_from(["noisy", "spikes"]),
)


@pytest.mark.usefixtures("small")
class TestAnyTrip:
    """With few buckets, so that they are merged several times."""

    @given(trips, st.integers(4, 60))
    def test_no_sample_lies_farther_from_the_trace_than_it_says(
        self, rows: FloatArray, points: int
    ) -> None:
        found = recorded(rows).thinned(points)
        assert (truly_within(rows, found.trace) <= found.within + 1e-9).all()

    @given(trips, st.integers(4, 60))
    def test_the_trace_is_made_of_the_trips_own_samples_and_keeps_both_ends(
        self, rows: FloatArray, points: int
    ) -> None:
        trace = columns(recorded(rows).thinned(points).trace)
        assert 2 <= len(trace) <= 1.1 * points
        assert set(map(tuple, trace)) <= set(map(tuple, rows[:, :4]))
        assert (np.diff(trace[:, 0]) > 0).all()
        np.testing.assert_array_equal(trace[[0, -1]], rows[[0, -1], :4])

    @given(trips, st.integers(10, 60))
    def test_the_worst_error_of_all_samples_is_in_the_trace(
        self, rows: FloatArray, points: int
    ) -> None:
        worst = rows[np.argmax(rows[:, 4])]
        assert worst[0] in recorded(rows).thinned(points).trace.time_s

    @given(trips, st.sets(st.integers(1, 699), max_size=20))
    def test_looking_at_it_on_the_way_changes_nothing(
        self, rows: FloatArray, looks: set[int]
    ) -> None:
        plain, looked = recorded(rows), TripRecord(FEATURES)
        for start, end in pairwise([0, *sorted(looks), len(rows)]):
            recorded(rows[start:end], looked)
            if looked.seen:
                looked.thinned(20)
                looked.saved(SAVED_BUCKETS)
        same(plain.thinned(20), looked.thinned(20))

    @given(trips, st.integers(1, 699), st.integers(4, 60))
    def test_a_restart_in_the_middle_keeps_the_promise(
        self, rows: FloatArray, cut: int, points: int
    ) -> None:
        cut = min(cut, len(rows) - 1)
        found = recorded(rows[cut:], restarted(recorded(rows[:cut]))).thinned(points)
        assert (truly_within(rows, found.trace) <= found.within + 1e-9).all()
        assert found.trace.time_s[0] == rows[0, 0]
        assert found.trace.time_s[-1] == rows[-1, 0]
        assert set(map(tuple, columns(found.trace))) <= set(map(tuple, rows[:, :4]))

    @given(st.sampled_from([1, 7, 8, 33, 64, 1000, 3001]))
    def test_memory_is_bounded_whatever_the_length(self, count: int) -> None:
        record = recorded(np.column_stack([np.arange(float(count))] * 5))
        assert len(record.saved(10**9)[0]) <= 32
        assert (record._table.shape, record._fresh.shape) == ((40, 20), (8, 6))


def same(one: Thinned, other: Thinned) -> None:
    np.testing.assert_array_equal(columns(one.trace), columns(other.trace))
    np.testing.assert_array_equal(one.within, other.within)
    assert one.error_v == other.error_v


def test_a_trip_that_fits_is_thinned_as_if_all_of_it_were_there() -> None:
    rows = trip_of(3000, 1, "spikes")
    whole = TraceArrays(rows[:, 0], rows[:, 1:3], rows[:, 3])
    found = recorded(rows).thinned(50)
    evidence = without(found.trace, found.worst)
    np.testing.assert_array_equal(columns(evidence), columns(thin(whole, 50)))
    np.testing.assert_allclose(found.within, truly_within(rows, found.trace))


def test_a_day_at_ten_samples_a_second_keeps_its_knees_and_its_one_bad_second() -> None:
    """The steep last ten minutes are a hundred-and-fortieth of the day."""
    count = 864_000
    time_s = 0.1 * np.arange(count)
    knee = np.clip((time_s - 85_800.0) / 600.0, 0.0, 1.0)
    rng = np.random.default_rng(0)
    voltage_v = 4.0 - 0.3 * time_s / 86_400 - 1.2 * knee + rng.normal(0, 0.01, count)
    error_v = np.abs(rng.normal(0, 0.02, count))
    error_v[400_000:400_010] = 2.0
    rows = np.column_stack([time_s, time_s, np.zeros(count), voltage_v, error_v])
    found = recorded(rows).thinned(50)
    assert ((found.trace.time_s > 85_800) & (found.trace.time_s < 86_400)).sum() >= 10
    assert ((found.trace.time_s >= 40_000) & (found.trace.time_s < 40_001)).any()
    assert truly_within(rows, found.trace)[2] <= found.within[2] < 0.2


def test_the_error_over_the_trace_says_how_far_it_is_from_the_trips() -> None:
    rows = trip_of(600, 3)
    found = recorded(rows).thinned(600)
    assert found.error_v == pytest.approx(rows[:, 4].mean(), rel=0.03)
    flat = rows.copy()
    flat[:, 4] = 0.07
    assert recorded(flat).thinned(20).error_v == pytest.approx(0.07)


def test_the_worst_errors_travel_and_are_no_evidence(tmp_path: Path) -> None:
    bundle = aged_bundle(tmp_path)
    rows = trip_of(2000, 5)
    found = recorded(rows).thinned(50)
    wire = to_wire(found.trace, found.worst)
    evidence = from_wire(wire, bundle.manifest)
    assert len(wire.time_s) - len(evidence.time_s) == len(wire.worst) == 5
    told = [wire.time_s[point] for point in wire.worst]
    assert round(rows[np.argmax(rows[:, 4]), 0], 2) in told
    assert len(evidence.time_s) == 50


@pytest.mark.parametrize("worst", [[0], [54], [7, 7], [9, 8], [99]])
def test_worst_points_that_are_none_are_refused(tmp_path: Path, worst: list[int]) -> None:
    bundle = aged_bundle(tmp_path)
    found = recorded(trip_of(2000, 5)).thinned(50)
    wire = msgspec.structs.replace(to_wire(found.trace), worst=worst)
    with pytest.raises(MalformedMessageError, match="worst points"):
        from_wire(wire, bundle.manifest)


def test_worst_errors_are_not_all_of_one_bad_stretch() -> None:
    rows = trip_of(2000, 4)
    rows[500:520, 4] = 5.0
    rows[1500, 4] = 3.0
    kept = recorded(rows).thinned(50).trace.time_s
    bad = np.isin(kept, rows[500:520, 0]).sum()
    assert rows[1500, 0] in kept
    assert 1 <= bad <= 4
