"""A trace on the wire: within rounding the same, folded where constant, checked on arrival."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MalformedMessageError
from common.messages import Trace
from common.trace import TraceArrays, from_wire, shares, to_wire
from tests.support_edge import manifest_of

MANIFEST = manifest_of(b"")
GOOD = Trace([0.0, 1.0, 2.5], [[0.0, 10.0, 20.0], 500.0], [4.1, 4.0, 3.9])


@st.composite
def plausible(draw: st.DrawFn) -> TraceArrays:
    """A trace inside the manifest's ranges, its times at least a tenth of a millisecond apart."""
    points = draw(st.integers(2, 30))
    steps = draw(st.lists(st.floats(1e-4, 1e3), min_size=points, max_size=points))

    def column(low: float, high: float) -> list[float]:
        return draw(st.lists(st.floats(low, high), min_size=points, max_size=points))

    columns = [column(f.minimum, f.maximum) for f in MANIFEST.features]
    voltage = column(MANIFEST.target.minimum, MANIFEST.target.maximum)
    return TraceArrays(np.cumsum(steps), np.array(columns).T, np.array(voltage))


@given(plausible())
def test_a_plausible_trace_survives_the_wire_within_rounding(trace: TraceArrays) -> None:
    wire = msgspec.json.decode(msgspec.json.encode(to_wire(trace)), type=Trace)
    back = from_wire(wire, MANIFEST)
    np.testing.assert_allclose(back.time_s, trace.time_s, rtol=0, atol=0.0051)
    np.testing.assert_allclose(back.features, trace.features, rtol=1e-6)
    np.testing.assert_allclose(back.voltage_v, trace.voltage_v, rtol=1e-5)


def test_a_value_at_a_limit_of_many_digits_survives_the_rounding_of_the_wire() -> None:
    manifest = msgspec.structs.replace(
        MANIFEST, target=msgspec.structs.replace(MANIFEST.target, minimum=3.10000149, maximum=4.2)
    )
    trace = TraceArrays(np.arange(2.0), np.full((2, 2), 1.0), np.array([3.10000149, 4.2]))
    assert from_wire(to_wire(trace), manifest).voltage_v[0] == pytest.approx(3.10000149, abs=1e-5)


@pytest.mark.parametrize(("step_s", "longest"), [(60.0, 5), (0.25, 4), (0.001, 6), (0.00001, 8)])
def test_times_carry_as_few_digits_as_keep_them_increasing(step_s: float, longest: int) -> None:
    times = np.arange(9) * step_s
    wire = to_wire(TraceArrays(times, np.ones((9, 2)), np.ones(9)))
    assert all(np.diff(wire.time_s) > 0)
    assert max(len(msgspec.json.encode(time)) for time in wire.time_s) <= longest


def test_a_constant_column_travels_as_one_number() -> None:
    features = np.array([[0.0, 500.0], [10.0, 500.0], [20.0, 500.0 + 1e-9]])
    wire = to_wire(TraceArrays(np.arange(3.0), features, np.array([4.1, 4.0, 3.9])))
    assert wire.features == [[0.0, 10.0, 20.0], 500.0]
    np.testing.assert_array_equal(from_wire(wire, MANIFEST).features[:, 1], [500.0] * 3)


def test_a_good_trace_is_unfolded() -> None:
    arrays = from_wire(GOOD, MANIFEST)
    assert arrays.features.shape == (3, 2)
    assert arrays.features.tolist() == [[0.0, 500.0], [10.0, 500.0], [20.0, 500.0]]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"time_s": [0.0, 1.0, 1.0]}, "do not increase"),
        ({"time_s": [0.0, 2.0, 1.0]}, "do not increase"),
        ({"time_s": [0.0, float("nan"), 2.0]}, "do not increase"),
        ({"time_s": [0.0, 1.0]}, "other lengths"),
        ({"voltage_v": [4.1, 4.0]}, "other lengths"),
        ({"features": [[0.0, 10.0], 500.0]}, "other lengths"),
        ({"features": [[0.0, 10.0, 20.0]]}, "1 feature columns, not 2"),
        ({"features": [1.0, 1.0, 1.0]}, "3 feature columns, not 2"),
        ({"features": [[0.0, 10.0, 501.0], 500.0]}, r"distance_km outside \[0, 500\] km"),
        ({"features": [[-1.0, 10.0, 20.0], 500.0]}, "distance_km outside"),
        ({"features": [0.0, 2001.0]}, "load_avg outside"),
        ({"features": [0.0, float("nan")]}, "load_avg outside"),
        ({"voltage_v": [4.1, 4.0, 5.001]}, "voltage_v outside"),
        ({"voltage_v": [4.1, 4.0, 0.999]}, "voltage_v outside"),
        ({"voltage_v": [4.1, float("inf"), 3.0]}, "voltage_v outside"),
    ],
)
def test_a_trace_that_does_not_fit_the_manifest_is_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MalformedMessageError, match=problem):
        from_wire(msgspec.structs.replace(GOOD, **changes), MANIFEST)


@given(plausible())
def test_the_shares_of_a_trip_are_how_its_mean_over_time_is_taken(trace: TraceArrays) -> None:
    share = shares(trace.time_s)
    span = trace.time_s[-1] - trace.time_s[0]
    middle_v = (trace.voltage_v[1:] + trace.voltage_v[:-1]) / 2
    over_time = middle_v @ np.diff(trace.time_s) / span
    assert share @ trace.voltage_v == pytest.approx(over_time, rel=1e-9, abs=1e-9)
    assert share.sum() == pytest.approx(1.0)


def test_a_single_point_stands_for_its_whole_trip() -> None:
    np.testing.assert_array_equal(shares(np.zeros((2, 1))), np.ones((2, 1)))
