"""Messages of the outbox that stand on whole pages to which no whole page leads any more.

One broken page near the root of a table takes everything below it out of SQLite's reach. Here each
page that looks like a leaf is read by itself, as SQLite's file format describes it (sections 1.6,
2.1 and 4.2), and a row is believed only with its checksum. A message that was sent before may come
back by that: the cloud takes it for the same fact. Must never raise for damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from edge_agent.storage.aside import beside
from edge_agent.storage.state_schema import PAGE_BYTES

LEAF: Final = 0x0D
LARGEST_BYTES: Final = 1 << 20
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_LOCAL_MOST: Final = PAGE_BYTES - 35
_LOCAL_LEAST: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_COLUMNS: Final = 6
_FLOAT: Final = 7
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Message = tuple[int, str, str, float, int, bytes]
"""seq, message_id, kind, put_at, crc, payload: the columns of the outbox."""


def stray_messages(path: Path) -> Iterator[Message]:
    """Every message that can be believed, of the database and of its log. Raises OSError."""
    log = _log_of(path)
    with path.open("rb") as file:
        pages = _Pages(file, dict(log))  # the newest of each
        for _, page in log:
            yield from _messages_on(page, pages)
        for page in _each(file):
            yield from _messages_on(page, pages)


class _Pages:
    def __init__(self, file: BinaryIO, newer: dict[int, bytes]) -> None:
        self._file, self._newer = file, newer

    def page(self, number: int) -> bytes:
        if number in self._newer:
            return self._newer[number]
        self._file.seek((number - 1) * PAGE_BYTES)
        return self._file.read(PAGE_BYTES)


def _each(file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while True:
        file.seek(number * PAGE_BYTES)
        page = file.read(PAGE_BYTES)
        if len(page) < PAGE_BYTES:
            return
        number += 1
        yield page


def _log_of(path: Path) -> list[tuple[int, bytes]]:
    """(page number, content) of its frames, oldest first; a frame of an older log ends it."""
    try:
        raw = beside(path, "-wal").read_bytes()
    except OSError:
        return []
    found, salts = [], raw[16:24]
    step = _FRAME_HEADER_BYTES + PAGE_BYTES
    for at in range(_WAL_HEADER_BYTES, len(raw) - step + 1, step):
        if raw[at + 8 : at + 16] != salts:
            break
        number = int.from_bytes(raw[at : at + 4], "big")
        found.append((number, raw[at + _FRAME_HEADER_BYTES : at + step]))
    return found


def _messages_on(page: bytes, pages: _Pages) -> Iterator[Message]:
    if page[0] != LEAF:
        return
    count = int.from_bytes(page[3:5], "big")
    for i in range(min(count, PAGE_BYTES // 4)):
        at = int.from_bytes(page[8 + 2 * i : 10 + 2 * i], "big")
        try:
            message = _message(*_cell(page, at, pages))
        except (IndexError, ValueError, struct.error):
            continue
        if message is not None:
            yield message


def _cell(page: bytes, at: int, pages: _Pages) -> tuple[int, bytes]:
    """(row number, record), with what overflows onto other pages."""
    size, at = _varint(page, at)
    seq, at = _varint(page, at)
    if size > LARGEST_BYTES:
        raise ValueError("no message is so large")
    local = size
    if size > _LOCAL_MOST:
        local = _LOCAL_LEAST + (size - _LOCAL_LEAST) % (PAGE_BYTES - 4)
        local = local if local <= _LOCAL_MOST else _LOCAL_LEAST
    record = bytearray(page[at : at + local])
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while len(record) < size:
        overflow = pages.page(following) if following else b""
        if len(overflow) < PAGE_BYTES:
            raise ValueError("the rest of the record is not there")
        record += overflow[4 : 4 + size - len(record)]
        following = int.from_bytes(overflow[:4], "big")
    return seq, bytes(record)


def _message(seq: int, record: bytes) -> Message | None:
    """None for a row of another table, or one whose checksum is wrong."""
    end, at = _varint(record, 0)
    types = []
    while at < end:
        serial, at = _varint(record, at)
        types.append(serial)
    if len(types) != _COLUMNS or types[0] != 0:
        return None
    values = []
    for serial in types[1:]:
        value, at = _value(record, at, serial)
        values.append(value)
    message_id, kind, put_at, crc, payload = values
    if not isinstance(message_id, str) or not isinstance(kind, str):
        return None
    if not isinstance(put_at, float | int) or not isinstance(crc, int):
        return None
    if not isinstance(payload, bytes) or crc != zlib.crc32(payload):
        return None
    return seq, message_id, kind, float(put_at), crc, payload


def _value(record: bytes, at: int, serial: int) -> tuple[object, int]:
    if serial in {0, 8, 9}:
        return {0: None, 8: 0, 9: 1}[serial], at
    if serial == _FLOAT:
        return struct.unpack_from(">d", record, at)[0], at + 8
    size = _INTEGER_BYTES.get(serial, (serial - 12) // 2)
    content = record[at : at + size]
    if len(content) != size or serial in {10, 11}:
        raise ValueError("the record ends too soon")
    if serial in _INTEGER_BYTES:
        return int.from_bytes(content, "big", signed=True), at + size
    return (content if serial % 2 == 0 else content.decode()), at + size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(number, position behind it); at most nine bytes, the ninth with all its bits."""
    number = 0
    for i in range(8):
        byte = raw[at + i]
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            return number, at + i + 1
    return number << 8 | raw[at + 8], at + 9
