"""Open a damaged state file to be read, also when the pages that name its tables are gone.

Without them SQLite reads nothing. In every file that this code made the tables begin at the same
pages, so that those of an empty state serve. Must never alter the damaged file: a copy is mended.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edge_agent.storage.aside import beside, remove_all
from edge_agent.storage.state_file import connect_to_read, is_damage
from edge_agent.storage.state_schema import PAGE_BYTES, SCHEMA


@contextmanager
def opened(source: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that reads, or None where nothing helps. Raises sqlite3.Error: a disk's."""
    copy = beside(source, ".copy")
    connection = _readable(source)
    try:
        if connection is None:
            with suppress(OSError):
                _copy_with_own_schema(source, copy)
                connection = _readable(copy)
        yield connection
    finally:
        if connection is not None:
            connection.close()
        with suppress(OSError):
            remove_all(copy)


def _readable(path: Path) -> sqlite3.Connection | None:
    connection: sqlite3.Connection | None = None
    try:
        connection = connect_to_read(path)
        connection.execute("SELECT message_id, kind, payload FROM outbox LIMIT 0").fetchall()
    except (sqlite3.Error, UnicodeError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            raise
        return None
    return connection


def _copy_with_own_schema(source: Path, copy: Path) -> None:
    """The fields of the header are those of SQLite's file format, section 1.3."""
    shutil.copyfile(source, copy)
    wal = beside(source, "-wal")
    if wal.exists():
        shutil.copyfile(wal, beside(copy, "-wal"))
    pages = _schema_pages()
    first = bytearray(pages[1])
    first[18:20] = bytes([2, 2])  # a log may stand beside it
    first[28:32] = (copy.stat().st_size // PAGE_BYTES).to_bytes(4, "big")  # its length in pages,
    first[92:96] = first[24:28]  # which holds
    first[32:40] = bytes(8)  # no free pages: what they hold is nobody's
    with copy.open("r+b") as file:
        for number, page in {**pages, 1: bytes(first)}.items():
            file.seek((number - 1) * PAGE_BYTES)
            file.write(page)


def _schema_pages() -> dict[int, bytes]:
    """Of an empty state, by number: all but the pages at which the (empty) tables begin."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        empty.execute(f"PRAGMA page_size={PAGE_BYTES}")
        empty.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        roots = {row[0] for row in empty.execute("SELECT rootpage FROM sqlite_master")}
        content = empty.serialize()
    return {
        number + 1: content[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        for number in range(len(content) // PAGE_BYTES)
        if number + 1 not in roots
    }
