"""A bundle is believed only when manifest, hash and tensors fit; a misfit says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.training.candidates import Kind, Target
from cloud.training.flatbuffer_graph import ADD, FULLY_CONNECTED, Graph
from cloud.training.tflite_writer import write_tflite
from common.bundle import MANIFEST_FILE, MODEL_FILE, load_bundle
from common.errors import BundleError, ModelContractError
from common.manifest import decode_manifest, encode_manifest
from common.model import BATCH_SIZES, VoltageModel
from common.revision import revision_hash
from tests.support_edge import (
    AGEING,
    NETWORK,
    aged_bundle,
    manifest_of,
    write_bundle,
)


def test_a_good_bundle_loads_and_is_known_by_its_manifest(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path))
    assert bundle.sha256 == revision_hash((tmp_path / MANIFEST_FILE).read_bytes())
    assert bundle.manifest.model_sha256 == revision_hash(bundle.model)


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_bundle(tmp_path) / name).unlink()
    with pytest.raises(BundleError, match=name) as caught:
        load_bundle(tmp_path)
    assert caught.value.where == tmp_path
    assert "twin-cloud train" in str(caught.value)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_single_changed_byte_of_the_model_is_found(tmp_path: Path, position: int) -> None:
    path = write_bundle(tmp_path) / MODEL_FILE
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(tmp_path)


def set_at(*path: str | int, to: Any) -> Callable[[Any], None]:
    def change(fields: Any) -> None:
        for key in path[:-1]:
            fields = fields[key]
        fields[path[-1]] = to

    return change


def remove(name: str) -> Callable[[Any], None]:
    return lambda fields: fields.pop(name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_at("schema", to=2), "schema 2"),
        (remove("schema"), "schema None"),
        (set_at("schema", to=True), "manifest.json"),
        (set_at("surprise", to=1), "surprise"),
        (remove("features"), "features"),
        (set_at("features", to=[]), "features"),
        (set_at("parameters", to=[]), "parameters"),
        (set_at("features", 0, "minimum", to="0"), "minimum"),
        (set_at("features", 0, "minimum", to=500.0), "distance_km needs a finite minimum"),
        (set_at("target", "maximum", to=1.0), "voltage_v needs a finite minimum"),
        (set_at("target", "name", to="distance_km"), "twice"),
        (set_at("parameters", 0, "name", to="offset"), "twice"),
        (set_at("parameters", 0, "name", to=""), "name"),
        (set_at("parameters", 0, "lower", to=1.0), "gain needs lower < nominal < upper"),
        (set_at("parameters", 0, "upper", to=1.0), "gain needs lower < nominal < upper"),
        (set_at("parameters", 0, "prior_std", to=0.0), "prior_std"),
        (set_at("parameters", 0, "process_noise", to=-1e-9), "process_noise"),
        (set_at("parameters", 0, "rate_prior_std", to=-1.0), "rate_prior_std"),
        (set_at("features", 1, "moving_average", "time_constant_s", to=0.0), "time_constant_s"),
        (set_at("measurement_noise_std_v", to=0.0), "measurement_noise_std_v"),
        (set_at("model_discrepancy_std_v", to=-1.0), "model_discrepancy_std_v"),
        (set_at("error_threshold_v", to=0.0), "error_threshold_v"),
        (set_at("model_sha256", to="0" * 63), "model_sha256"),
        (set_at("health", "swept_feature", to="elsewhere"), "health needs one swept feature"),
        (set_at("health", "reference", to={}), "health needs one swept feature"),
        (set_at("health", "reference", "more", to=1.0), "health needs one swept feature"),
        (set_at("health", "stop", to=0.0), "health needs start < stop"),
    ],
)
def test_each_problem_of_a_manifest_is_named(change: Callable[[Any], None], problem: str) -> None:
    fields = json.loads(encode_manifest(manifest_of(b"")))
    change(fields)
    with pytest.raises(BundleError, match=problem):
        decode_manifest(json.dumps(fields).encode(), "here")


@given(st.binary(max_size=100) | st.just(b"[" * 50_000) | st.just(b'{"schema": NaN}'))
def test_a_manifest_of_garbage_is_a_bundle_error(raw: bytes) -> None:
    with pytest.raises(BundleError, match="here"):
        decode_manifest(raw, "here")


def test_a_manifest_survives_its_bytes_and_they_are_stable() -> None:
    raw = encode_manifest(manifest_of(b""))
    assert decode_manifest(raw, "here") == manifest_of(b"")
    assert encode_manifest(decode_manifest(raw, "here")) == raw


def bundle_of(folder: Path, model: bytes, **changes: Any) -> Path:
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest_of(model, **changes)))
    return folder


def graph(inputs: dict[str, int], output: int = 1) -> bytes:
    """Any inputs, each through a layer to the output's width, added up."""
    made = Graph()
    numbers = {name: made.input(name, width) for name, width in inputs.items()}
    layers = []
    for (name, width), number in zip(inputs.items(), numbers.values(), strict=True):
        w = made.constant(f"{name}/w", np.zeros((output, width)))
        b = made.constant(f"{name}/b", np.zeros(output))
        layers.append(made.operator(FULLY_CONNECTED, (number, w, b), f"{name}/out", output))
    total = layers[0]
    for layer in layers[1:]:
        total = made.operator(ADD, (total, layer), "voltage", output)
    return made.encode(total, "a test")


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (graph({"features": 2, "theta": 2}), r"inputs are \['features', 'theta'\]"),
        (graph({"features": 2}), r"inputs are \['features'\]"),
        (graph({"features": 3, "parameters": 2}), r"'features' is float32\[-1, 3\], needed"),
        (graph({"features": 2, "parameters": 1}), r"'parameters' is float32\[-1, 1\], needed"),
        (graph({"features": 2, "parameters": 2}, output=2), r"it gives \(1, 2\)"),
        (b"", "truncated, damaged or no .tflite"),
        (b"this is no model at all, whatever its name says", "truncated, damaged or no .tflite"),
    ],
)
def test_other_tensors_than_the_contract_wants_are_named(
    tmp_path: Path, model: bytes, problem: str
) -> None:
    bundle = load_bundle(bundle_of(tmp_path, model))
    with pytest.raises(ModelContractError, match=problem) as caught:
        VoltageModel(bundle)
    assert str(tmp_path) in str(caught.value)


def test_a_manifest_with_one_parameter_more_than_the_model_is_refused(tmp_path: Path) -> None:
    extra = msgspec.structs.replace(AGEING[0], name="third")
    model = write_tflite(NETWORK, [Target(Kind.OUTPUT_OFFSET, (0,))] * 2)
    bundle = load_bundle(bundle_of(tmp_path, model, parameters=[*AGEING, extra]))
    with pytest.raises(ModelContractError, match=r"'parameters' is .* needed \[-1, 3\]"):
        VoltageModel(bundle)


@pytest.mark.parametrize("rows", [0, 1, 2, 16, 17, BATCH_SIZES[-1], BATCH_SIZES[-1] + 1])
def test_the_model_gives_the_same_voltage_alone_and_in_any_batch(tmp_path: Path, rows: int) -> None:
    model = VoltageModel(aged_bundle(tmp_path))
    features = np.column_stack([np.linspace(0, 400, rows), np.linspace(0, 900, rows)])
    thetas = np.column_stack([np.linspace(0.8, 1.2, rows), np.linspace(-0.1, 0.1, rows)])
    together = model.predict(features, thetas)
    assert together.shape == (rows,)
    for i in range(0, rows, max(rows // 7, 1)):
        assert together[i] == pytest.approx(model.predict(features[i], thetas[i])[0], abs=1e-6)


def test_the_model_computes_the_networks_formula(tmp_path: Path) -> None:
    distance, load, gain, offset = 150.0, 700.0, 1.2, 0.05
    hidden = np.tanh((gain * distance - 200) / 100 + 0.05 * (load - 500) / 500)
    found = VoltageModel(aged_bundle(tmp_path)).predict([[distance, load]], [gain, offset])
    assert found[0] == pytest.approx(3.5 - 0.6 * hidden + offset, abs=1e-5)
