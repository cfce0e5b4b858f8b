"""Build a bundle in memory, judge it by the contract, and write it in one step.

Must never leave half a bundle, and never touch what stood at the destination before.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cloud.training.errors import OutputExistsError, OutputNotWritableError
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.errors import BundleError
from common.manifest import Manifest, decode_manifest, encode_manifest


def in_memory(manifest: Manifest, model: bytes, where: Path) -> Bundle:
    """A bundle that stands on no disk; `where` names it in errors."""
    raw = encode_manifest(manifest)
    return Bundle(manifest, model, hashlib.sha256(raw).hexdigest(), where)


def require_writable(out: Path) -> None:
    """Refuse early what `write_bundle` would refuse after the work.

    Raises OutputExistsError, OutputNotWritableError.
    """
    try:
        if out.exists() and _sha256_at(out) is None:
            raise OutputExistsError(out)
        above = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise OutputNotWritableError(out, error) from error
    if not above.is_dir():
        raise OutputNotWritableError(out, NotADirectoryError(errno.ENOTDIR, f"{above} is a file"))
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputNotWritableError(out, PermissionError(errno.EACCES, f"no right in {above}"))


def write_bundle(
    out: Path, manifest: Manifest, model: bytes, extra: Mapping[str, bytes] | None = None
) -> Bundle:
    """Write the folder `out` by a rename and read it back; `extra` are further files by name.

    The very same bundle at `out` is left as it is. Raises OutputNotWritableError,
    OutputExistsError when something else stands there, BundleError when the manifest does not keep
    its own rules.
    """
    raw = encode_manifest(manifest)
    decode_manifest(raw, out)
    if out.exists():
        if _sha256_at(out) != hashlib.sha256(raw).hexdigest():
            raise OutputExistsError(out)
        return load_bundle(out)
    try:
        _write_folder(out, {MODEL_FILE: model, MANIFEST_FILE: raw, **(extra or {})})
    except OSError as error:
        raise OutputNotWritableError(out, error) from error
    return load_bundle(out)


def _write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        _fill(partial, files)
        partial.chmod(0o755)  # mkdtemp gives 0700, which a service under another user cannot read
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def _sha256_at(path: Path) -> str | None:
    try:
        return load_bundle(path).sha256
    except BundleError:
        return None
