"""Bundles that may be brought to vehicles: tried first, and kept byte for byte.

Must never keep a bundle that every vehicle would refuse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlmodel import Session

from cloud.store import bundle_registry
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.bundle_check import range_problem
from common.errors import BundleError
from common.manifest import decode_manifest
from common.model import VoltageModel
from common.release import digest

MANIFEST_BYTES: Final = 1024 * 1024
"""A vehicle takes no larger one."""
MODEL_BYTES: Final = 4 * 1024 * 1024


def tried(folder: Path) -> Bundle:
    """The bundle in a folder. Raises BundleError."""
    return _tried(load_bundle(folder))


def uploaded(manifest: bytes, model: bytes) -> Bundle:
    """The bundle that these two files are. Raises BundleError."""
    where = Path("(uploaded)")
    for name, content, most in (
        (MANIFEST_FILE, manifest, MANIFEST_BYTES),
        (MODEL_FILE, model, MODEL_BYTES),
    ):
        if len(content) > most:
            raise BundleError(where, f"{name} has more than {most} bytes", "Train a smaller one.")
    found = Bundle(decode_manifest(manifest, where), model, digest(manifest), where)
    if digest(model) != found.manifest.model_sha256:
        problem = f"{MODEL_FILE} is not the one that its manifest names"
        raise BundleError(where, problem, "Upload both files of one bundle.")
    return _tried(found)


def keep(
    db: Session,
    bundle: Bundle,
    now: float,
    manifest: bytes | None = None,
    by: str | None = None,
    why: str | None = None,
) -> bool:
    """Whether it is new here; without `manifest` that file is read from the bundle's folder.

    The manifest's SHA-256 is the bundle's id. Raises OSError.
    """
    if bundle_registry.is_kept(db, bundle.sha256):
        return False
    raw = (bundle.path / MANIFEST_FILE).read_bytes() if manifest is None else manifest
    bundle_registry.add(db, bundle.sha256, raw, bundle.model, now, by, why)
    return True


def _tried(bundle: Bundle) -> Bundle:
    problem = range_problem(VoltageModel(bundle), bundle.manifest)
    if problem is not None:
        raise BundleError(bundle.path, problem, "Train it anew, or correct its manifest.")
    return bundle
