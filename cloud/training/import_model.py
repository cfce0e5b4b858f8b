"""Import somebody else's .tflite (Keras, PyTorch, ...) with a manifest, once it checks out.

Must never change the model, and never leave anything behind when it refuses.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from cloud.training import probe
from cloud.training.bundle_writer import require_writable, write_bundle
from cloud.training.errors import ImportRefusedError
from common.bundle import Bundle
from common.errors import BundleError, ModelContractError
from common.flatbuffer_check import is_whole
from common.manifest import Manifest, decode_manifest


def import_model(model_path: Path, manifest_path: Path, out: Path) -> Bundle:
    """Check the model against the contract and write the bundle folder `out`.

    `model_sha256` is filled in when it is absent or empty. Raises ImportRefusedError,
    ModelContractError or BundleError when something is wrong with model or manifest, and
    OutputExistsError; what stood at `out` stays.
    """
    require_writable(out)
    model = _read(model_path, "Give the path of a .tflite file.")
    manifest = _manifest(manifest_path, model, model_path)
    _require_contract(model, manifest, model_path)
    return write_bundle(out, manifest, model)


def _manifest(path: Path, model: bytes, model_path: Path) -> Manifest:
    raw = _read(path, "Give the path of a manifest.json.")
    try:
        content = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"it is no JSON object ({error})"
        raise BundleError(path, problem, "Correct the manifest.") from error
    found = hashlib.sha256(model).hexdigest()
    declared = content.get("model_sha256") or found
    if declared != found:
        raise ImportRefusedError(
            model_path,
            f"its SHA-256 is {found[:12]}…, the manifest says {str(declared)[:12]}…",
            "Give the model that belongs to the manifest, or leave model_sha256 empty.",
        )
    return decode_manifest(msgspec.json.encode({**content, "model_sha256": found}), path)


def _require_contract(model: bytes, manifest: Manifest, model_path: Path) -> None:
    if not is_whole(model):
        problem, remedy = "it is truncated, damaged or no .tflite", "Export or copy it again."
        raise ImportRefusedError(model_path, problem, remedy)
    with tempfile.TemporaryDirectory(prefix="import-model-") as folder:
        verdict = probe.judge(write_bundle(Path(folder) / "bundle", manifest, model).path)
    if verdict.tensors:
        raise ModelContractError(model_path, verdict.tensors)
    if verdict.problem:
        raise ImportRefusedError(model_path, verdict.problem.what, verdict.problem.remedy)


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImportRefusedError(path, error.strerror or str(error), remedy) from error
