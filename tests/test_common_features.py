"""Moving averages equal their closed form, and a missing signal is no zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.features import FeatureBuilder, MissingSignalError
from tests.support_edge import manifest_of

MANIFEST = manifest_of(b"")
TIME_CONSTANT_S = 60.0
steps = st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(-1e3, 1e3)), min_size=1, max_size=30)


@given(steps)
def test_a_moving_average_equals_its_closed_form(samples: list[tuple[float, float]]) -> None:
    times = np.cumsum([dt for dt, _ in samples])
    loads = np.array([load for _, load in samples])
    builder = FeatureBuilder(MANIFEST)
    for i, (time_s, load) in enumerate(zip(times.tolist(), loads.tolist(), strict=True)):
        row = builder.row(time_s, {"distance_km": float(i), "load_kg": load})
        decay = np.exp(-(times[i] - times[: i + 1]) / TIME_CONSTANT_S)
        share = decay - np.concatenate([[0.0], decay[:-1]])
        assert row[0] == i
        assert row[1] == pytest.approx(float(share @ loads[: i + 1]), rel=1e-9, abs=1e-6)


def test_a_moving_average_begins_at_the_trips_first_sample_and_anew_each_trip() -> None:
    for load in (700.0, 300.0):
        row = FeatureBuilder(MANIFEST).row(1e9, {"distance_km": 0.0, "load_kg": load})
        assert row == [0.0, load]


def test_after_one_time_constant_a_step_is_at_63_percent() -> None:
    builder = FeatureBuilder(MANIFEST)
    builder.row(0.0, {"distance_km": 0.0, "load_kg": 0.0})
    row = builder.row(TIME_CONSTANT_S, {"distance_km": 0.0, "load_kg": 100.0})
    assert row[1] == pytest.approx(100 * (1 - math.exp(-1)))


def test_a_candidate_row_changes_nothing_until_it_is_taken() -> None:
    builder = FeatureBuilder(MANIFEST)
    builder.row(0.0, {"distance_km": 0.0, "load_kg": 100.0})
    nonsense = builder.candidate_row(30.0, {"distance_km": 1.0, "load_kg": math.nan})
    assert math.isnan(nonsense[1])
    assert builder.row(60.0, {"distance_km": 1.0, "load_kg": 100.0}) == [1.0, 100.0]


@pytest.mark.parametrize("missing", ["distance_km", "load_kg"])
def test_a_missing_signal_is_named_and_no_zero(missing: str) -> None:
    signals = {"distance_km": 1.0, "load_kg": 1.0}
    del signals[missing]
    with pytest.raises(MissingSignalError, match=f"no signal '{missing}'") as caught:
        FeatureBuilder(MANIFEST).row(0.0, signals)
    assert caught.value.signal == missing
