"""The vehicle's parameters a second time, in two small files beside the state.

A database that is destroyed leaves what the vehicle drove on, and the revision judged last, below
which it takes none. Two files are written in turn, each with a checksum, so that one is always
whole and a change costs one fsync. Must never be believed for another vehicle or bundle: what it
holds is signed, and is checked like everything else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_agent.storage.aside import beside, sync_file

ENDINGS = (".parameters-a", ".parameters-b")
CHECKSUM_BYTES = 4


class ParameterCopy(msgspec.Struct, frozen=True):
    """`slots` and `anchors` as the database holds them after so many `writes`."""

    vehicle_id: str
    bundle: str
    writes: int
    slots: dict[str, bytes]
    anchors: dict[str, bytes] = {}


def read(path: Path, key: Mapping[str, str]) -> ParameterCopy | None:
    """The newest that is whole and belongs to this vehicle and bundle. Never raises."""
    found = [_whole(file) for file in _files(path)]
    return max((copy for copy in found if _is_of(copy, key)), key=_age, default=None)


def write(path: Path, copy: ParameterCopy) -> None:
    """Over the one that is not the newest. Raises OSError; then the other is as it was."""
    body = msgspec.msgpack.encode(copy)
    key = {"vehicle_id": copy.vehicle_id, "bundle": copy.bundle}
    to = min(_files(path), key=lambda file: _age(_whole(file)) if _is_of(_whole(file), key) else -1)
    is_new = not to.exists()
    with to.open("wb") as opened:
        opened.write(zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "big") + body)
        opened.flush()
        os.fsync(opened.fileno())
    if is_new:
        sync_file(to.parent)


def _files(path: Path) -> list[Path]:
    return [beside(path, ending) for ending in ENDINGS]


def _is_of(copy: ParameterCopy | None, key: Mapping[str, str]) -> bool:
    return copy is not None and (copy.vehicle_id, copy.bundle) == (key["vehicle_id"], key["bundle"])


def _age(copy: ParameterCopy | None) -> int:
    return -1 if copy is None else copy.writes


def _whole(path: Path) -> ParameterCopy | None:
    try:
        raw = path.read_bytes()
        body = raw[CHECKSUM_BYTES:]
        if zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "big") != raw[:CHECKSUM_BYTES]:
            return None
        return msgspec.msgpack.decode(body, type=ParameterCopy)
    except (OSError, msgspec.MsgspecError):
        return None
