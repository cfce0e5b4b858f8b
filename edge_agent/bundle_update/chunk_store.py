"""The files of a release as far as they have come: each chunk is checked alone before it is kept.

What is on the disk is hashed again after a restart, so nothing has to be written down about it, and
a torn write is a missing chunk. One chunk at a time is in memory. Must never keep a byte that the
announcement does not vouch for, nor let a file grow beyond its announced size.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final, Literal

from common.release import FILES, AnnouncedFile, Announcement, Chunk, FileName, digest
from edge_agent.bundle_update.folder import synchronise

Taken = Literal["kept", "known", "unasked", "mismatch"]
Wanted = tuple[FileName, int]

BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system has
RESERVE_BYTES: Final = 16 * 1024 * 1024
"""What a download leaves free for what is measured."""


class NoSpaceError(OSError):
    """The disk has no room for the announced files."""


class ChunkStore:
    """Of one announcement, in `folder`. Raises OSError where the disk refuses, NoSpaceError."""

    def __init__(self, folder: Path, announcement: Announcement) -> None:
        self._folder, self._announcement = folder, announcement
        folder.mkdir(parents=True, exist_ok=True)
        self._allocate()
        self._missing: dict[FileName, set[int]] = {name: self._absent(name) for name in FILES}

    def missing(self) -> list[Wanted]:
        """The chunks that have not come, in the order in which to ask for them."""
        return [(name, index) for name in FILES for index in sorted(self._missing[name])]

    def has_all_of(self, name: FileName) -> bool:
        """Whether that file is complete."""
        return not self._missing[name]

    def read(self, name: FileName) -> bytes:
        """A complete file that is small enough to be read as one."""
        return (self._folder / name).read_bytes()

    def take(self, chunk: Chunk) -> Taken:
        """Keep a chunk if it is one of those announced and has the announced SHA-256."""
        file = self._announcement.file(chunk.file)
        if chunk.release != self._announcement.release or chunk.index >= len(file.chunks):
            return "unasked"
        if chunk.index not in self._missing[chunk.file]:
            return "known"
        if digest(chunk.data) != file.chunks[chunk.index]:
            return "mismatch"
        self._write(chunk)
        self._missing[chunk.file].discard(chunk.index)
        return "kept"

    def finish(self) -> bool:
        """With nothing missing: put it on the disk for good. False: a file is not as announced."""
        for name in FILES:
            with (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())
                if hashlib.file_digest(file, "sha256").hexdigest() != self._file(name).sha256:
                    return False
        synchronise(self._folder)
        return True

    def _file(self, name: FileName) -> AnnouncedFile:
        return self._announcement.file(name)

    def _allocate(self) -> None:
        """All of the space at once: a disk that is too full says so now, not in the middle."""
        for entry in self._folder.iterdir():
            if entry.name not in FILES:
                entry.unlink()
        there = sum(path.stat().st_blocks * BLOCK_BYTES for path in self._folder.iterdir())
        needed = max(self._announcement.size - there, 0) + RESERVE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise NoSpaceError(f"{needed} bytes are needed, {free} are free")
        for name in FILES:
            with (self._folder / name).open("ab") as file:
                os.ftruncate(file.fileno(), self._file(name).size)
                os.posix_fallocate(file.fileno(), 0, self._file(name).size)

    def _absent(self, name: FileName) -> set[int]:
        size = self._announcement.chunk_bytes
        absent = set()
        with (self._folder / name).open("rb") as file:
            for index, expected in enumerate(self._file(name).chunks):
                if digest(file.read(size)) != expected:
                    absent.add(index)
        return absent

    def _write(self, chunk: Chunk) -> None:
        offset = chunk.index * self._announcement.chunk_bytes
        with (self._folder / chunk.file).open("r+b") as file:
            file.seek(offset)
            file.write(chunk.data)
