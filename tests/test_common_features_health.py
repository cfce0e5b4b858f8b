"""Moving averages equal their closed form, and health is where the voltage meets the cut-off."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import calibration
from common.bundle import Bundle
from common.calibration import Estimate, Settings
from common.features import FeatureBuilder, MissingSignalError
from common.health import state_of_health, usable_until_cutoff
from common.model import VoltageModel
from tests.support_edge import aged_bundle, manifest_of

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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def at(bundle: Bundle, theta: list[float], share: float = 1.0) -> Estimate:
    prior = calibration.prior(bundle.manifest)
    return replace(prior, theta=np.array(theta), covariance=share**2 * prior.covariance)


def crossing_km(gain: float, offset: float = 0.0, cutoff: float = 3.1) -> float:
    """Where 3.5 - 0.6 tanh((gain d - 200) / 100) + offset is the cut-off."""
    return (200 + 100 * math.atanh((3.5 + offset - cutoff) / 0.6)) / gain


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (1.25, 0.0), (0.9, -0.05)])
def test_the_usable_distance_is_where_the_voltage_meets_the_cut_off(
    bundle: Bundle, gain: float, offset: float
) -> None:
    health = bundle.manifest.health
    assert health is not None
    theta = np.array([[gain, offset]])
    found = usable_until_cutoff(theta, health, VoltageModel(bundle), bundle.manifest)
    assert found[0] == pytest.approx(crossing_km(gain, offset), abs=0.05)


def test_health_is_relative_to_new_and_its_spread_comes_from_the_covariance(bundle: Bundle) -> None:
    def health(share: float) -> tuple[float, float, float]:
        estimate = at(bundle, [1.25, 0.0], share)
        found = state_of_health(estimate, VoltageModel(bundle), bundle.manifest, Settings())
        assert found is not None
        return found.ratio, found.std, found.usable

    ratio, std, usable = health(0.1)
    assert ratio == pytest.approx(1 / 1.25, abs=1e-3)
    assert usable == pytest.approx(crossing_km(1.25), abs=0.05)
    of_gain = 0.1 * 0.1 * ratio / 1.25
    of_offset = 0.1 * 0.05 * 100 / 0.6 / (1 - (0.4 / 0.6) ** 2) / 1.25 / crossing_km(1.0)
    assert std == pytest.approx(math.hypot(of_gain, of_offset), rel=0.05)
    assert health(0.01)[1] < std < health(0.2)[1]


def test_a_battery_that_never_reaches_the_cut_off_is_usable_to_the_end_of_the_sweep(
    bundle: Bundle,
) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, cutoff_voltage_v=1.0)
    assert manifest.health is not None
    thetas = np.array([[1.0, 0.0]])
    assert usable_until_cutoff(thetas, manifest.health, VoltageModel(bundle), manifest) == [500.0]
    empty = msgspec.structs.replace(bundle.manifest, cutoff_voltage_v=4.9)
    assert usable_until_cutoff(thetas, manifest.health, VoltageModel(bundle), empty) == [0.0]


def test_without_a_health_section_there_is_no_state_of_health(tmp_path: Path) -> None:
    plain = aged_bundle(tmp_path, health=None)
    found = state_of_health(at(plain, [1.0, 0.0]), VoltageModel(plain), plain.manifest, Settings())
    assert found is None
