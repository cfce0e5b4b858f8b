"""Read a bundle folder (`voltage_model.tflite`, `manifest.json`); believe it when it checks out.

Must never modify a bundle: a bundle is immutable and known by the SHA-256 of its manifest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import BundleError
from common.manifest import Manifest, decode_manifest

MODEL_FILE: Final = "voltage_model.tflite"
MANIFEST_FILE: Final = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. `sha256` is that of its manifest, which holds the model's: its id."""

    manifest: Manifest
    model: bytes
    sha256: str
    path: Path


def load_bundle(path: Path) -> Bundle:
    """Read and check the bundle in folder `path`. Raises BundleError."""
    raw_manifest = _read(path, MANIFEST_FILE)
    manifest = decode_manifest(raw_manifest, path)
    model = _read(path, MODEL_FILE)
    found = hashlib.sha256(model).hexdigest()
    if found != manifest.model_sha256:
        raise BundleError(
            path,
            f"{MODEL_FILE} has SHA-256 {found[:12]}…, its manifest says "
            f"{manifest.model_sha256[:12]}…",
            "The model or the manifest was changed or damaged: copy the bundle again.",
        )
    return Bundle(manifest, model, hashlib.sha256(raw_manifest).hexdigest(), path)


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        problem = f"{name} cannot be read ({error.strerror})"
        remedy = "Give the folder that `twin-cloud train` wrote."
        raise BundleError(path, problem, remedy) from error
