"""The first crossing of the cut-off: exact, first, and found with few rows of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloud.training.candidates import Kind, Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.cutoff import _refined, first_crossing, usable_until_cutoff
from common.manifest import Health, encode_manifest
from common.model import VoltageModel
from tests.support_derived import crossing_km
from tests.support_edge import aged_bundle, manifest_of

FLEET = Path(__file__).parent / "data" / "fleet_bundle"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.fixture(scope="module")
def dipping(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Falls below 3.1 V late, and dips once before: where, how wide and how deep is in θ."""
    folder = tmp_path_factory.mktemp("dipping")
    network = Network(
        input_mean=np.array([250.0, 500.0]),
        input_scale=np.array([250.0, 500.0]),
        weights=(np.array([[20.0, 0.0], [20.0, 0.0], [10.0, 0.0]]), np.array([[-0.2, 0.2, -0.3]])),
        biases=(np.array([10.0, 9.0, -7.0]), np.array([0.0])),
        output_mean=3.5,
        output_scale=1.0,
    )
    acts = (Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,)))
    model = write_tflite(network, acts)
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest_of(model)))
    return load_bundle(folder)


def sweep_of(bundle: Bundle) -> Health:
    assert bundle.manifest.health is not None
    return bundle.manifest.health


def on_a_dense_grid(bundle: Bundle, theta: list[float], points: int = 20_001) -> tuple[Any, Any]:
    """The first crossing on a dense grid, and the voltages there."""
    sweep = sweep_of(bundle)
    grid = np.linspace(sweep.start, sweep.stop, points)
    others = [sweep.reference.get(name, 0.0) for name in bundle.manifest.feature_names]
    rows = np.tile(others, (points, 1))
    rows[:, bundle.manifest.feature_names.index(sweep.swept_feature)] = grid
    voltage = VoltageModel(bundle).predict(rows, np.array(theta))
    below = voltage <= bundle.manifest.cutoff_voltage_v
    return (grid[below.argmax()] if below.any() else np.inf), voltage


@given(st.floats(0.6, 1.9), st.floats(-0.15, 0.15))
def test_the_crossing_is_where_the_closed_form_has_it(
    bundle: Bundle, gain: float, offset: float
) -> None:
    theta = np.array([[gain, offset]])
    found = first_crossing(theta, sweep_of(bundle), VoltageModel(bundle), bundle.manifest)
    expected = crossing_km(gain, offset)
    assert found[0] == pytest.approx(float(expected) if expected <= 500 else np.inf, abs=2e-3)


def test_many_at_once_are_what_each_is_alone(bundle: Bundle) -> None:
    thetas = np.random.default_rng(3).uniform([0.5, -0.3], [2.0, 0.3], (300, 2))
    model, sweep = VoltageModel(bundle), sweep_of(bundle)
    together = first_crossing(thetas, sweep, model, bundle.manifest)
    alone = [first_crossing(theta[None], sweep, model, bundle.manifest)[0] for theta in thetas]
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert np.isinf(together).any()
    assert np.isfinite(together).any()


def test_on_the_trained_fleet_model_it_is_as_exact_as_a_dense_sweep() -> None:
    fleet = load_bundle(FLEET)
    thetas = np.random.default_rng(5).normal(1.0, 0.05, (20, 2))
    found = first_crossing(thetas, sweep_of(fleet), VoltageModel(fleet), fleet.manifest)
    expected = [on_a_dense_grid(fleet, theta.tolist())[0] for theta in thetas]
    np.testing.assert_allclose(found, expected, atol=0.03)  # the dense grid's own step


def test_an_offset_of_the_voltage_moves_each_crossing_of_its_own(bundle: Bundle) -> None:
    offsets = np.array([-0.1, 0.0, 0.1])
    thetas = np.array([[1.1, 0.0]] * 3)
    found = first_crossing(thetas, sweep_of(bundle), VoltageModel(bundle), bundle.manifest, offsets)
    np.testing.assert_allclose(found, crossing_km(1.1, offsets), atol=2e-3)


@settings(max_examples=60)
@given(st.floats(0.6, 1.4), st.floats(-0.25, 0.25))
def test_it_is_the_first_crossing_also_where_the_voltage_recovers(
    dipping: Bundle, gain: float, offset: float
) -> None:
    expected, voltage = on_a_dense_grid(dipping, [gain, offset])
    lowest_of_dip = voltage[: int(0.75 * len(voltage))].min()
    assume(abs(lowest_of_dip - 3.1) > 1e-3)
    theta = np.array([[gain, offset]])
    found = first_crossing(theta, sweep_of(dipping), VoltageModel(dipping), dipping.manifest)
    assert found[0] == pytest.approx(expected, abs=0.05)


def test_a_dip_between_two_coarse_points_is_found(dipping: Bundle) -> None:
    early = []
    for gain in np.linspace(0.9, 1.1, 41).tolist():
        _, voltage = on_a_dense_grid(dipping, [gain, 0.0])
        just_touching = 3.1 - float(voltage[: int(0.6 * len(voltage))].min()) - 2e-3
        expected, _ = on_a_dense_grid(dipping, [gain, just_touching])
        theta = np.array([[gain, just_touching]])
        found = first_crossing(theta, sweep_of(dipping), VoltageModel(dipping), dipping.manifest)
        early.append((found[0], expected))
    found, expected = np.array(early).T
    assert expected.max() < 250
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_beyond_the_sweep_is_infinity_and_usable_to_its_stop(bundle: Bundle) -> None:
    full = msgspec.structs.replace(bundle.manifest, cutoff_voltage_v=1.0)
    theta, sweep, model = np.array([[1.0, 0.0]]), sweep_of(bundle), VoltageModel(bundle)
    assert first_crossing(theta, sweep, model, full) == [np.inf]
    assert usable_until_cutoff(theta, sweep, model, full) == [500.0]
    empty = msgspec.structs.replace(bundle.manifest, cutoff_voltage_v=4.9)
    assert usable_until_cutoff(theta, sweep, model, empty) == [0.0]


class CountingModel(VoltageModel):
    """Counts the rows that it is asked for."""

    rows = 0

    def predict(self, features: Any, parameters: Any) -> Any:
        self.rows += len(features)
        return super().predict(features, parameters)

    def predict_grid(self, features: Any, parameters: Any) -> Any:
        self.rows += len(features) * len(parameters)
        return super().predict_grid(features, parameters)


def test_a_theta_costs_less_than_forty_rows() -> None:
    fleet = load_bundle(FLEET)
    model = CountingModel(fleet)
    thetas = np.random.default_rng(1).normal(1.0, 0.05, (256, 2))
    first_crossing(thetas, sweep_of(fleet), model, fleet.manifest)
    assert 32 * 256 <= model.rows < 40 * 256


def test_a_steep_end_is_refined_within_the_steps_there_are() -> None:
    """Plain regula falsi stays at one end for thousands of steps."""
    steepness = np.array([2.0, 8.0, 12.0])

    def margin(x: Any, of: Any) -> Any:
        return 1.0 - x ** steepness[of]

    low, high = np.zeros(3), np.full(3, 1.5)
    ends = low, high, margin(low, np.arange(3)), margin(high, np.arange(3))
    np.testing.assert_allclose(_refined(*ends, margin, 1e-9), 1.0, atol=1e-6)
