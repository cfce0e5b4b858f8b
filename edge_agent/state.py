"""The agent's state on disk: one SQLite file, opened whole or set aside and begun anew.

WAL with full synchronisation: a committed transaction survives a power cut. Must never delete a
damaged file (it is renamed, for a person to look at), and never restore another vehicle's or
another bundle's state.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edge_agent.errors import StateInUseError, StorageError

FORMAT = 1  # bump this to begin anew instead of misreading an older layout

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_by_kind ON outbox (kind, seq);
CREATE TABLE IF NOT EXISTS kept_trace (
    message_id TEXT PRIMARY KEY,
    odometer REAL NOT NULL,
    breach BLOB NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parameters (
    slot TEXT PRIMARY KEY, signed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS finished_trip (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trip_id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL);
"""

log = logging.getLogger(__name__)


class State:
    """The open state file. Use from one thread; `transaction()` is the only way to write."""

    def __init__(self, path: Path, vehicle_id: str, bundle: str) -> None:
        """Raises StateInUseError when another agent holds it, StorageError when it cannot be."""
        self.path = path
        self._lock = _lock(path)
        self.set_aside: list[Path] = []
        key = {"vehicle_id": vehicle_id, "bundle": bundle, "format": str(FORMAT)}
        try:
            self.connection = self._open_for(key)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise StorageError(path, str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit on success, roll back on any error. Raises StorageError for a disk's troubles."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise StorageError(self.path, str(error)) from error
            raise

    def _roll_back(self) -> None:
        """A disk in trouble may refuse even this; the next transaction then tries again."""
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self.connection.close()
        self._lock.close()

    def _open_for(self, key: dict[str, str]) -> sqlite3.Connection:
        try:
            connection = _connect(self.path)
            found = dict(connection.execute("SELECT key, value FROM identity"))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # a full or read-only disk is no damage
            self._put_aside(f"it is damaged ({error})", "damaged")
            connection, found = _connect(self.path), {}
        if found and found != key:
            connection.close()
            self._put_aside(f"it belongs to {found}", "other")
            connection = _connect(self.path)
        connection.executemany("INSERT OR IGNORE INTO identity VALUES (?, ?)", list(key.items()))
        return connection

    def _put_aside(self, why: str, suffix: str) -> None:
        """Rename the file and its log out of the way, under the first free name."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{suffix}-{number}")).exists():
            number += 1
        for ending in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        self.set_aside.append(aside)
        log.error("state_set_aside path=%s kept_as=%s why=%r", self.path, aside, why)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _lock(path: Path) -> IO[str]:
    """An advisory lock that the kernel lets go when the process dies, however it dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise StorageError(path, str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StateInUseError(path) from error
    return lock
