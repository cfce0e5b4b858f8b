"""The .tflite writer: the file computes what the network means, whatever parameters it has."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.training.bundle_writer import in_memory
from cloud.training.candidates import Kind, Target
from cloud.training.contract_check import float32_tolerance_v
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common.manifest import Feature, Manifest, Parameter
from common.manifest import Target as VoltageTarget
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

ALL_KINDS = [
    Target(Kind.INPUT_GAIN, (0,)),
    Target(Kind.INPUT_GAIN, (0, 2)),
    Target(Kind.INPUT_OFFSET, (1,)),
    Target(Kind.RESPONSE, (0, 1)),
    Target(Kind.RESPONSE, (2,)),
    Target(Kind.LAST_WEIGHT, (1,)),
    Target(Kind.LAST_BIAS, (0,)),
    Target(Kind.OUTPUT_GAIN, (0,)),
    Target(Kind.OUTPUT_OFFSET, (0,)),
]


def random_network(
    seed: int, features: int = 3, hidden: tuple[int, ...] = (5, 4), volts: float = 3.5
) -> Network:
    rng = np.random.default_rng(seed)
    sizes = (features, *hidden, 1)
    return Network(
        input_mean=rng.normal(0.0, 100.0, features).astype(np.float32).astype(np.float64),
        input_scale=rng.uniform(5.0, 50.0, features),
        weights=tuple(rng.normal(0.0, 0.8, (b, a)) for a, b in pairwise(sizes)),
        biases=tuple(rng.normal(0.0, 0.5, b) for b in sizes[1:]),
        output_mean=volts,
        output_scale=volts / 5,
    )


def model_of(network: Network, targets: list[Target]) -> VoltageModel:
    raw = write_tflite(network, targets)
    manifest = Manifest(
        schema=1,
        name="test",
        model_sha256=hashlib.sha256(raw).hexdigest(),
        features=[Feature(f"f{i}", "", -1e3, 1e3) for i in range(network.input_count)],
        target=VoltageTarget("voltage_v", "V", 0.0, 5.0),
        parameters=[
            Parameter(f"p{p}", "1", nominal(target), 0.1, -5.0, 5.0)
            for p, target in enumerate(targets)
        ],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.0,
        cutoff_voltage_v=2.0,
        error_threshold_v=0.05,
    )
    return VoltageModel(in_memory(manifest, raw, Path("memory")))


def nominal(target: Target) -> float:
    return 0.0 if target.kind in {Kind.INPUT_OFFSET, Kind.OUTPUT_OFFSET, Kind.LAST_BIAS} else 1.0


def reference_voltage(
    network: Network, targets: list[Target], features: FloatArray, thetas: FloatArray
) -> FloatArray:
    """The definition, in float64: gains before offsets, on inputs and on the output."""
    gain, offset = np.ones_like(features), np.zeros_like(features)
    weight = np.ones((len(features), network.last_hidden_count))
    v_gain, v_offset, bias = (
        np.ones(len(features)),
        np.zeros(len(features)),
        np.zeros(len(features)),
    )
    for target, theta in zip(targets, thetas.T, strict=True):
        columns = list(target.indices)
        if target.kind is Kind.INPUT_GAIN:
            gain[:, columns] *= theta[:, None]
        elif target.kind is Kind.INPUT_OFFSET:
            offset[:, columns] += theta[:, None]
        elif target.kind is Kind.LAST_WEIGHT:
            weight[:, columns] *= theta[:, None]
        elif target.kind is Kind.OUTPUT_GAIN:
            v_gain *= theta
        elif target.kind is Kind.LAST_BIAS:
            bias += theta
        elif target.kind is Kind.OUTPUT_OFFSET:
            v_offset += theta

    inputs = gain * features + offset
    unscaled = _volts(network, inputs, weight)
    unscaled = unscaled + _responses(network, targets, inputs, thetas, weight)
    return np.asarray(v_gain * (unscaled + bias) + v_offset)


def _volts(network: Network, inputs: FloatArray, weight: FloatArray) -> FloatArray:
    h = (inputs - network.input_mean) / network.input_scale
    for w, b in zip(network.weights[:-1], network.biases[:-1], strict=True):
        h = np.tanh(h @ w.T + b)
    v = (weight * h) @ network.weights[-1][0] + network.biases[-1][0]
    return np.asarray(v * network.output_scale + network.output_mean)


def _responses(
    network: Network,
    targets: list[Target],
    inputs: FloatArray,
    thetas: FloatArray,
    weight: FloatArray,
) -> FloatArray:
    plain, added = _volts(network, inputs, weight), np.zeros(len(inputs))
    for target, theta in zip(targets, thetas.T, strict=True):
        if target.kind is Kind.RESPONSE:
            without = inputs.copy()
            without[:, list(target.indices)] = 0.0
            added += (theta - 1.0) * (plain - _volts(network, without, weight))
    return added


def draw(
    network: Network, targets: list[Target], rows: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Rows of features and one θ for each, as float32 holds them."""
    rng = np.random.default_rng(seed)
    scale = network.input_scale
    features = network.input_mean + scale * rng.normal(size=(rows, network.input_count))
    thetas = np.array([nominal(t) for t in targets]) + rng.normal(0, 0.1, (rows, len(targets)))
    rounded = [a.astype(np.float32).astype(np.float64) for a in (features, thetas)]
    return rounded[0], rounded[1]


@st.composite
def selections(draw_: st.DrawFn, features: int, hidden: int) -> list[Target]:
    inputs = [(i,) for i in range(features)]
    groups = st.lists(st.integers(0, features - 1), min_size=2, max_size=features, unique=True)
    possible = st.one_of(
        st.builds(Target, st.just(Kind.INPUT_GAIN), st.sampled_from(inputs)),
        *([] if features == 1 else [groups.map(lambda g: Target(Kind.INPUT_GAIN, tuple(g)))]),
        st.builds(Target, st.just(Kind.INPUT_OFFSET), st.sampled_from(inputs)),
        st.builds(
            Target, st.just(Kind.LAST_WEIGHT), st.sampled_from([(j,) for j in range(hidden)])
        ),
        st.just(Target(Kind.LAST_BIAS, (0,))),
        st.just(Target(Kind.OUTPUT_GAIN, (0,))),
        st.just(Target(Kind.OUTPUT_OFFSET, (0,))),
    )
    return draw_(st.lists(possible, min_size=1, max_size=8, unique=True))


@settings(max_examples=60)
@given(st.data())
def test_any_network_with_any_parameters_computes_its_definition(data: st.DataObject) -> None:
    features = data.draw(st.integers(1, 5))
    hidden = tuple(data.draw(st.lists(st.integers(1, 10), min_size=1, max_size=3)))
    network = random_network(data.draw(st.integers(0, 999)), features, hidden)
    targets = data.draw(selections(features, hidden[-1]))
    x, thetas = draw(network, targets, 40, data.draw(st.integers(0, 999)))
    expected = reference_voltage(network, targets, x, thetas)
    found = model_of(network, targets).predict(x, thetas)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_pack_of_hundreds_of_volts_keeps_what_float32_can_hold() -> None:
    network = random_network(1, volts=400.0)
    x, thetas = draw(network, ALL_KINDS, 500, 2)
    expected = reference_voltage(network, ALL_KINDS, x, thetas)
    found = model_of(network, ALL_KINDS).predict(x, thetas)
    assert np.abs(found - expected).max() <= float32_tolerance_v(expected, 4.0)


def test_each_row_has_its_own_theta() -> None:
    network = random_network(3)
    model = model_of(network, ALL_KINDS)
    x, thetas = draw(network, ALL_KINDS, 16, 4)
    alone = np.concatenate([model.predict(x[i : i + 1], thetas[i]) for i in range(16)])
    np.testing.assert_allclose(model.predict(x, thetas), alone, rtol=0, atol=1e-5)
    assert np.abs(model.predict(x, thetas[0]) - alone)[1:].min() > 1e-5


@pytest.mark.parametrize("target", ALL_KINDS, ids=lambda target: str(target.kind.value))
def test_each_parameter_reaches_the_voltage(target: Target) -> None:
    network = random_network(5)
    model = model_of(network, [target])
    x, _ = draw(network, [target], 32, 6)
    moved = model.predict(x, [nominal(target) + 0.2]) - model.predict(x, [nominal(target)])
    assert np.abs(moved).max() > 1e-3


def test_the_same_network_and_parameters_give_the_same_bytes() -> None:
    assert write_tflite(random_network(7), ALL_KINDS) == write_tflite(random_network(7), ALL_KINDS)
    assert write_tflite(random_network(7), ALL_KINDS) != write_tflite(random_network(8), ALL_KINDS)


def test_operators_that_no_parameter_needs_are_left_out() -> None:
    few = write_tflite(random_network(9), [Target(Kind.OUTPUT_OFFSET, (0,))])
    many = write_tflite(random_network(9), ALL_KINDS)
    assert b"input_gain" in many
    assert b"last_weight" in many
    assert b"input_gain" not in few
    assert b"last_weight" not in few


def test_the_file_carries_the_identifier_and_aligned_constants() -> None:
    network = random_network(10)
    raw = write_tflite(network, ALL_KINDS)
    assert raw[4:8] == b"TFL3"
    hidden = network.weights[1].astype("<f4").tobytes()
    assert raw.find(hidden) % 16 == 0
