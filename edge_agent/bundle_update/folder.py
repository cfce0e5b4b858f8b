"""The folder beside the state file that holds updates: the record, bundles by their SHA-256.

    record.json         which bundle runs; written whole or not at all
    announcement.json   the release under way, as it was signed
    incoming/           its files, as far as they have come
    <sha256>/           bundles that are complete

Every change is written beside, synchronised, and renamed into place; then the folder is
synchronised. Must never leave a state in which no bundle can run, wherever the power goes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from common.bundle import Bundle, load_bundle
from common.errors import BundleError
from edge_agent.bundle_update.record import FACTORY, FORMAT, Record

log = logging.getLogger(__name__)

_DIGEST: Final = 64


class UpdateFolder:
    """Of one vehicle. Raises OSError where the disk refuses."""

    def __init__(self, state: Path, vehicle_id: str) -> None:
        self.path = state.with_name(state.name + ".bundles")
        self.incoming = self.path / "incoming"
        self._vehicle_id = vehicle_id
        self._record = self.path / "record.json"
        self._announcement = self.path / "announcement.json"

    def read(self) -> Record:
        """The record; a damaged one, or another vehicle's, is set aside and begun anew."""
        nothing = Record(vehicle_id=self._vehicle_id)
        try:
            content = self._record.read_bytes()
        except FileNotFoundError:
            return nothing
        except OSError as error:
            log.error("bundle_record_unreadable path=%s why=%r", self._record, str(error))  # noqa: TRY400
            return nothing
        found = _decoded(content)
        if found is not None and (found.format, found.vehicle_id) == (FORMAT, self._vehicle_id):
            return found
        log.error("bundle_record_set_aside path=%s: the configured bundle runs", self._record)
        with suppress(OSError):
            self._record.replace(self._record.with_suffix(".set-aside"))
        return nothing

    def write(self, record: Record) -> None:
        """Put a record in place of the one before, as one."""
        content = msgspec.json.encode(record)
        checked = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        self._put(self._record, checked)

    def keep_announcement(self, signed: bytes) -> None:
        """The release under way, as it came."""
        self._put(self._announcement, signed)

    def announcement(self) -> bytes | None:
        """What `keep_announcement` kept; None when it cannot be read."""
        try:
            return self._announcement.read_bytes()
        except OSError:
            return None

    def load(self, bundle: str, factory: Path) -> Bundle:
        """A bundle of the record. Raises BundleError: it is not what its name says."""
        if bundle == FACTORY:
            return load_bundle(factory)
        found = load_bundle(self.path / bundle)
        if found.sha256 != bundle:
            raise BundleError(found.path, "it is another bundle than its folder's name says", "")
        return found

    def has(self, bundle: str) -> bool:
        """Whether that bundle is there, complete and whole."""
        try:
            self.load(bundle, self.path)
        except BundleError:
            return False
        return True

    def move_in(self, bundle: str) -> None:
        """What is in `incoming`, complete, becomes the bundle of that name."""
        into = self.path / bundle
        if into.exists():  # damaged, else nothing would have been fetched
            shutil.rmtree(into)
        self.incoming.rename(into)
        synchronise(self.path)

    def forget_all_but(self, bundles: set[str], *, incoming: bool) -> None:
        """Remove what nobody needs any more; `incoming` says whether files are still coming."""
        if not self.path.is_dir():
            return
        for entry in self.path.iterdir():
            is_bundle = len(entry.name) == _DIGEST and entry.name not in bundles
            if is_bundle or (entry == self.incoming and not incoming):
                shutil.rmtree(entry, ignore_errors=True)

    def _put(self, path: Path, content: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        synchronise(self.path)


def synchronise(folder: Path) -> None:
    """Names too are only safe once their folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decoded(content: bytes) -> Record | None:
    checksum, _, body = content.partition(b"\n")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        return None
    try:
        return msgspec.json.decode(body, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
