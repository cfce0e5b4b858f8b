"""Importing a foreign model: believed only when it keeps the contract, refused without a trace."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.training import contract_check, probe
from cloud.training.candidates import Kind, Target
from cloud.training.errors import ImportRefusedError, OutputExistsError
from cloud.training.flatbuffer_graph import (
    ADD,
    FULLY_CONNECTED,
    MUL,
    Graph,
    OpKind,
)
from cloud.training.import_model import import_model
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common.bundle import load_bundle
from common.errors import BundleError, ModelContractError
from common.flatbuffer_check import is_whole
from common.model import VoltageModel

LOG = OpKind(code=73, options=0)
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "name": "foreign",
    "features": [
        {"name": "charge_ah", "unit": "Ah", "minimum": 0.0, "maximum": 2.0},
        {"name": "current_a", "unit": "A", "minimum": -2.0, "maximum": 2.0},
    ],
    "target": {"name": "voltage_v", "unit": "V", "minimum": 0.0, "maximum": 5.0},
    "parameters": [
        {
            "name": name,
            "unit": "1",
            "nominal": 1.0,
            "prior_std": 0.1,
            "lower": 0.5,
            "upper": 2.0,
        }
        for name in ("gain:charge_ah", "gain:output")
    ],
    "measurement_noise_std_v": 0.01,
    "model_discrepancy_std_v": 0.01,
    "cutoff_voltage_v": 2.5,
    "error_threshold_v": 0.05,
}
NETWORK = Network(
    input_mean=np.array([1.0, 0.0]),
    input_scale=np.array([0.5, 1.0]),
    weights=(np.array([[0.5, 0.2], [-0.3, 0.1]]), np.array([[-1.0, 0.5]])),
    biases=(np.array([0.1, 0.2]), np.array([0.0])),
    output_mean=3.6,
    output_scale=0.4,
)
GOOD = write_tflite(NETWORK, [Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_GAIN, (0,))])


class Offer:
    """A model and a manifest on disk, and where the bundle should go."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / "foreign.tflite"
        self.manifest = folder / "manifest.json"
        self.out = folder / "bundle"
        self.write(GOOD)

    def write(self, model: bytes, **changes: Any) -> Offer:
        self.model.write_bytes(model)
        self.manifest.write_text(json.dumps(MANIFEST | changes))
        return self

    def imported(self) -> Any:
        return import_model(self.model, self.manifest, self.out)

    def refused(self, kind: type[Exception], said: str) -> None:
        files = {path.name for path in self.out.parent.iterdir()}
        with pytest.raises(kind, match=said):
            self.imported()
        assert {path.name for path in self.out.parent.iterdir()} == files


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    return Offer(tmp_path)


def graph(build: Callable[[Graph, int, int], int], names: tuple[str, str], widths: Any) -> bytes:
    made = Graph()
    inputs = [made.input(name, width) for name, width in zip(names, widths, strict=True)]
    return made.encode(build(made, *inputs), "made by somebody else")


def dense(made: Graph, x: int, weights: Any, name: str, bias: float = 3.0) -> int:
    w = np.atleast_2d(np.array(weights))
    constants = made.constant(f"{name}/w", w), made.constant(f"{name}/b", np.full(len(w), bias))
    return made.operator(FULLY_CONNECTED, (x, *constants), name, len(w))


def linear(made: Graph, features: int, parameters: int) -> int:
    f = dense(made, features, [0.1, 0.1], "f")
    p = dense(made, parameters, [1.0, 1.0], "p", 0.0)
    return made.operator(MUL, (f, p), "voltage", 1)


def foreign(
    build: Callable[[Graph, int, int], int] = linear,
    names: tuple[str, str] = ("features", "parameters"),
    widths: tuple[int, int] = (2, 2),
) -> bytes:
    return graph(build, names, widths)


@pytest.mark.parametrize("declared", [{}, {"model_sha256": ""}])
def test_a_model_that_keeps_the_contract_becomes_a_bundle(
    offer: Offer, declared: dict[str, str]
) -> None:
    offer.write(GOOD, **declared)
    bundle = offer.imported()
    assert bundle.manifest.model_sha256 == hashlib.sha256(GOOD).hexdigest()
    assert load_bundle(offer.out).sha256 == bundle.sha256
    assert VoltageModel(bundle).predict([[1.0, 0.0]], [1.0, 1.0])[0] == pytest.approx(3.6, abs=0.2)
    assert sorted(path.name for path in offer.out.iterdir()) == [
        "manifest.json",
        "voltage_model.tflite",
    ]


def test_a_model_made_by_other_means_is_imported_too(offer: Offer) -> None:
    offer.write(foreign(), model_sha256=hashlib.sha256(foreign()).hexdigest())
    assert offer.imported().manifest.name == "foreign"


def test_importing_the_same_again_changes_nothing(offer: Offer) -> None:
    assert offer.imported().sha256 == offer.imported().sha256


def test_another_model_does_not_replace_what_stands_there(offer: Offer) -> None:
    before = offer.imported().sha256
    offer.write(foreign()).refused(OutputExistsError, "left as it is")
    assert load_bundle(offer.out).sha256 == before


def test_a_model_of_another_hash_is_refused(offer: Offer) -> None:
    offer.write(GOOD, model_sha256="0" * 64).refused(ImportRefusedError, "000000000000…")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (foreign(names=("x", "theta")), r"inputs are \['theta', 'x'\]"),
        (foreign(names=("features", "theta")), "inputs are"),
    ],
)
def test_foreign_tensor_names_are_refused(offer: Offer, model: bytes, said: str) -> None:
    offer.write(model).refused(ModelContractError, said)


def test_foreign_tensor_shapes_are_refused(offer: Offer) -> None:
    def three(made: Graph, features: int, parameters: int) -> int:
        f = dense(made, features, [0.1, 0.1, 0.1], "f")
        return made.operator(ADD, (f, dense(made, parameters, [1.0, 1.0], "p")), "voltage", 1)

    def two_outputs(made: Graph, features: int, parameters: int) -> int:
        return made.operator(ADD, (features, parameters), "voltage", 2)

    offer.write(foreign(three, widths=(3, 2))).refused(ModelContractError, "'features' is float32")
    offer.write(foreign(two_outputs)).refused(ModelContractError, r"gives \(1, 2\) for 1 rows")


def test_a_parameter_without_influence_is_refused_by_name(offer: Offer) -> None:
    def deaf(made: Graph, features: int, parameters: int) -> int:
        f = dense(made, features, [0.1, 0.1], "f")
        p = dense(made, parameters, [1.0, 0.0], "p")
        return made.operator(ADD, (f, p), "voltage", 1)

    offer.write(foreign(deaf)).refused(ImportRefusedError, "'gain:output' does not move")


def test_a_number_that_is_not_finite_inside_the_ranges_is_refused(offer: Offer) -> None:
    def logarithm(made: Graph, features: int, parameters: int) -> int:
        current = made.operator(LOG, (dense(made, features, [0, 1], "f", 0.0),), "log", 1)
        p = dense(made, parameters, [1.0, 1.0], "p")
        return made.operator(ADD, (current, p), "voltage", 1)

    offer.write(foreign(logarithm)).refused(ImportRefusedError, "nan inside the declared ranges")
    features = [MANIFEST["features"][0], MANIFEST["features"][1] | {"minimum": 0.5}]
    assert offer.write(foreign(logarithm), features=features).imported().path == offer.out


def test_rows_that_depend_on_each_other_are_a_problem(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BatchStatistics(VoltageModel):
        def predict(self, features: Any, parameters: Any) -> Any:
            v = super().predict(features, parameters)
            return v + 1e-3 * v.mean()

    bundle = offer.imported()
    assert contract_check.contract_problem(bundle) is None
    monkeypatch.setattr(contract_check, "VoltageModel", BatchStatistics)
    problem = contract_check.contract_problem(bundle)
    assert problem is not None
    assert "differs between 1 and 64 rows" in problem.what


def test_every_truncation_is_noticed_before_the_interpreter_sees_it() -> None:
    assert is_whole(GOOD)
    assert is_whole(foreign())
    assert [size for size in range(len(GOOD)) if is_whole(GOOD[:size])] == []


def test_offsets_that_lead_anywhere_are_walked_without_harm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        raw = bytearray(GOOD)
        for at in rng.integers(0, len(raw), 5):
            raw[at] = rng.integers(256)
        assert is_whole(bytes(raw)) in {True, False}


@pytest.mark.parametrize("crash", ["import os; os.abort()", "print('{}garbage')"])
def test_a_child_that_crashes_or_babbles_is_a_refusal(
    offer: Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crash: str
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{crash}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    offer.refused(ImportRefusedError, "crashes or hangs")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_model_is_refused(offer: Offer, share: float) -> None:
    offer.write(GOOD[: int(share * len(GOOD))])
    offer.refused(ImportRefusedError, "truncated, damaged or no")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x00" * 4096])
def test_a_file_that_is_no_model_is_refused(offer: Offer, content: bytes) -> None:
    offer.write(content)
    offer.refused(ImportRefusedError, "truncated, damaged or no")


def test_a_model_that_hangs_is_refused(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DEADLINE_S", 0.01)
    offer.refused(ImportRefusedError, "crashes or hangs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no json", "no JSON object"),
        (b"[1, 2]", "no JSON object"),
        (json.dumps(MANIFEST | {"schema": 2}).encode(), "schema 2"),
        (json.dumps(MANIFEST | {"parameters": []}).encode(), "parameters"),
        (json.dumps(MANIFEST | {"fetures": []}).encode(), "fetures"),
    ],
)
def test_a_bad_manifest_is_refused(offer: Offer, content: bytes, said: str) -> None:
    offer.manifest.write_bytes(content)
    offer.refused(BundleError, said)


@pytest.mark.parametrize("name", ["model", "manifest"])
def test_a_missing_file_is_refused(offer: Offer, name: str) -> None:
    getattr(offer, name).unlink()
    offer.refused(ImportRefusedError, "No such file")
