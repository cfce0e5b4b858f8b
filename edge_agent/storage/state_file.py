"""Connections to the state file: to write, to read what cannot be written, or in memory.

SQLite in WAL mode. Must never read the whole of a large file to open it: what is damaged further
inside shows when it is read, and is mended then.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from edge_agent.errors import DamagedRowError, StateUnusableError
from edge_agent.storage.aside import beside
from edge_agent.storage.state_schema import PAGE_BYTES, SCHEMA

CHECKED_WHOLE_BYTES: Final = 4 * 1024 * 1024
"""A file up to this size is checked page by page when it is opened: some ten milliseconds."""

LOG_PAGES: Final = 4000
"""The log is carried over into the database when it has grown to this: 4 MB."""

_SMALL_TABLES: Final = frozenset(
    {"identity", "parameters", "kept_trace", "counter", "running_trip"}
)
_HEADER: Final = b"SQLite format 3\0"
_VERSIONS: Final = slice(18, 20)
"""To write and to read: a damaged one makes the file look read-only."""
_PRIMARY: Final = 0xFF
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)
_BROKEN_SCHEMA: Final = (
    "unsupported file format",
    "no such table",
    "no such column",
    "has no column",
    "not decode to UTF-8",
)


def is_damage(error: BaseException | None) -> bool:
    """Whether the file itself is broken: no full, read-only or busy disk, no fault of a caller."""
    if isinstance(error, DamagedRowError):
        return True
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", 0)
    return (
        code & _PRIMARY in _DAMAGE
        or code in _UNREADABLE
        or any(told in str(error) for told in _BROKEN_SCHEMA)
    )


def connect(path: Path) -> sqlite3.Connection:
    """To read and write, with every table there. Raises sqlite3.Error, StateUnusableError.

    Tables that are there already stay as they are: see `has_own_tables`.
    """
    _check_header(path)
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a file that is made now
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=OFF")  # zeroing freed pages writes them again
        connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
        _refuse_foreign(connection, path)
        _check(connection, path)
        if has_own_tables(connection):
            connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
    except (sqlite3.Error, StateUnusableError):
        connection.close()
        raise
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        connection.close()
        raise DamagedRowError("the tables' names", str(error)) from error
    return connection


def has_own_tables(connection: sqlite3.Connection) -> bool:
    """Whether those that are there read as this version makes them. Raises sqlite3.Error."""
    found = _declared(connection)
    with closing(connect_in_memory()) as own:
        return all(found.get(name, sql) == sql for name, sql in _declared(own).items())


def _declared(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def connect_in_memory() -> sqlite3.Connection:
    """An empty state that no disk holds: to read from while the disk gives none."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """As it stands, log and all, without writing into it. Raises sqlite3.Error.

    Where no index can be made beside it (a read-only or full disk) it is the state without its
    log: `immutable`, SQLite makes no file.
    """
    address = path.resolve().as_uri()
    first = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
    try:
        first.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        first.close()
        return sqlite3.connect(f"{address}?immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        first.close()
        raise
    return first


def close_without_checkpoint(connection: sqlite3.Connection, path: Path) -> None:
    """Close the connection and leave the log for the next start: no fsync.

    The last to close a database carries its log over, unless it cannot lock it: a reader that
    stays a moment longer cannot. Where that fails the log is carried over, and nothing is lost.
    """
    reader: sqlite3.Connection | None = None
    with suppress(sqlite3.Error):
        reader = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        reader.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    connection.close()
    if reader is not None:
        reader.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises sqlite3.DatabaseError for damage as far as it is looked for."""
    if path.stat().st_size <= CHECKED_WHOLE_BYTES:
        _quick_check(connection, "1")
        return
    for table in _SMALL_TABLES & _tables(connection):
        _quick_check(connection, table)


def _check_header(path: Path) -> None:
    """Before SQLite sees it: it would grow a file that is none to the size of a page."""
    if path.exists():
        with path.open("rb") as file:
            first = file.read(_VERSIONS.stop)
        if first and (first[:16] != _HEADER or not set(first[_VERSIONS]) <= {1, 2}):
            raise DamagedRowError("state", "it is no SQLite file")


def _quick_check(connection: sqlite3.Connection, what: str) -> None:
    found = connection.execute(f"PRAGMA quick_check({what})").fetchone()
    if found is not None and found[0] != "ok":
        raise DamagedRowError("state", str(found[0]))


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Another program's database is neither damaged nor ours to write into."""
    tables = _tables(connection)
    if tables and "identity" not in tables and "outbox" not in tables:
        raise StateUnusableError(path, "it is another program's database", "Give another path.")


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


def has_stray_log(path: Path) -> bool:
    """A log without its database: SQLite would throw it away in silence."""
    database, wal = path, beside(path, "-wal")
    is_empty = not database.exists() or database.stat().st_size == 0
    return is_empty and wal.exists() and wal.stat().st_size > 0
