"""The agent's state on disk: one SQLite file, opened whole or set aside and begun anew.

WAL with full synchronisation: a committed transaction survives a power cut. A disk that refuses
even the opening leaves what can be read, and every transaction tries again. Must never run another
bundle's parameters, and never restore another vehicle's state; a damaged file is renamed, for a
person to look at, and the last three of those are kept.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edge_agent.errors import StateInUseError, StateUnusableError, StorageError

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
CREATE TABLE IF NOT EXISTS running_trip (
    one INTEGER PRIMARY KEY CHECK (one = 1), trip_id TEXT NOT NULL, saved BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS boot (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL UNIQUE,
    known_unix_s REAL, known_monotonic_s REAL, newest_unix_s REAL);
CREATE TABLE IF NOT EXISTS stamp (
    kind TEXT NOT NULL, ref TEXT NOT NULL, boot INTEGER NOT NULL, monotonic_s REAL NOT NULL,
    unix_s REAL NOT NULL, is_known INTEGER NOT NULL, PRIMARY KEY (kind, ref)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS stamp_of_message AFTER DELETE ON outbox BEGIN
    DELETE FROM stamp WHERE kind IN ('trip', 'ack') AND ref = OLD.message_id; END;
CREATE TRIGGER IF NOT EXISTS stamp_of_refusal AFTER DELETE ON refused BEGIN
    DELETE FROM stamp WHERE kind = 'refused' AND ref = CAST(OLD.seq AS TEXT); END;
CREATE TRIGGER IF NOT EXISTS stamp_of_trip AFTER DELETE ON running_trip BEGIN
    DELETE FROM stamp WHERE kind = 'running'; END;
"""

log = logging.getLogger(__name__)

KEPT_ASIDE = 3
REMEDY = "Free some space, make the folder writable, or give another path."


class State:
    """The open state file. Use from one thread; `transaction()` is the only way to write."""

    def __init__(self, path: Path, vehicle_id: str, bundle: str) -> None:
        """Raises StateInUseError (another agent holds it), StateUnusableError (it is no state).

        A state that exists is opened to be read, if nothing else is possible.
        """
        self.path = path
        self.set_aside: list[Path] = []
        self._key = {"vehicle_id": vehicle_id, "bundle": bundle, "format": str(FORMAT)}
        self._is_read_only = False
        self._lock = _lock(path)
        try:
            self.connection = self._open()
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise StateUnusableError(path, str(error), REMEDY) from error
        except StateUnusableError:
            self._unlock()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit on success, roll back on any error. Raises StorageError for a disk's troubles."""
        self._open_again()
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
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> sqlite3.Connection:
        """To be written; else, when there is a state that fits, to be read."""
        try:
            return self._open_to_write()
        except (sqlite3.OperationalError, OSError) as error:
            connection = _connect_to_read(self.path, self._key)
            if connection is None:
                raise
            self._is_read_only = True
            told = "state_read_only path=%s why=%r: trying again"
            log.error(told, self.path, str(error))  # noqa: TRY400 - it names the cause
            return connection

    def _open_again(self) -> None:
        """Before a transaction: perhaps the disk has come back. Raises StorageError."""
        if not self._is_read_only:
            return
        try:
            connection = self._open_to_write()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(self.path, str(error)) from error
        self.connection.close()
        self.connection, self._is_read_only = connection, False
        self._lock = self._lock or _lock(self.path)

    def _open_to_write(self) -> sqlite3.Connection:
        key = self._key
        try:
            connection = _connect(self.path)
            found = dict(connection.execute("SELECT key, value FROM identity"))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # a full or read-only disk is no damage
            self._put_aside(f"it is damaged ({error})", "damaged")
            connection, found = _connect(self.path), {}
        if found and found != key and {**found, "bundle": key["bundle"]} == key:
            _change_bundle(connection, key)
            log.warning("bundle_changed path=%s: parameters begin anew", self.path)
        elif found and found != key:
            connection.close()
            self._put_aside(f"it belongs to {found}", "other")
            connection = _connect(self.path)
        connection.executemany("INSERT OR IGNORE INTO identity VALUES (?, ?)", list(key.items()))
        return connection

    def _put_aside(self, why: str, suffix: str) -> None:
        """Rename the file and its log out of the way, under the next number."""
        number = 1 + max(_numbers_aside(self.path, suffix), default=0)
        aside = self.path.with_name(f"{self.path.name}.{suffix}-{number}")
        for ending in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        self.set_aside.append(aside)
        _forget_oldest_aside(self.path, suffix)
        log.error("state_set_aside path=%s kept_as=%s why=%r", self.path, aside, why)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        _refuse_foreign(connection, path)
        connection.executescript(_SCHEMA)
    except (sqlite3.Error, StateUnusableError):
        connection.close()
        raise
    return connection


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Another program's database is neither damaged nor ours to write into."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if tables and "identity" not in tables:
        raise StateUnusableError(path, "it is another program's database", "Give another path.")


def _connect_to_read(path: Path, key: dict[str, str]) -> sqlite3.Connection | None:
    """The state as its last checkpoint left it, when it is whole and this vehicle's own.

    `immutable`: SQLite makes no file beside it, which a full disk would refuse.
    """
    if not path.exists():
        return None
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?immutable=1", uri=True, isolation_level=None
    )
    try:
        found = dict(connection.execute("SELECT key, value FROM identity"))
    except sqlite3.Error:
        found = {}
    if found == key:
        return connection
    connection.close()
    return None


def _change_bundle(connection: sqlite3.Connection, key: dict[str, str]) -> None:
    """What was measured stays to be sent; what was calibrated belongs to the other model."""
    connection.execute("BEGIN IMMEDIATE")
    _change_parameters(connection, key["bundle"])
    connection.execute("DELETE FROM kept_trace")
    connection.execute("UPDATE identity SET value = ? WHERE key = 'bundle'", (key["bundle"],))
    connection.execute("COMMIT")


def _change_parameters(connection: sqlite3.Connection, bundle: str) -> None:
    """Those of the bundle of before are parked under its name: a roll-back finds them again."""
    before = connection.execute("SELECT value FROM identity WHERE key = 'bundle'").fetchone()[0]
    connection.execute(
        "DELETE FROM parameters WHERE instr(slot, '@') AND slot NOT LIKE '%@' || ?", (bundle,)
    )
    connection.execute(
        "UPDATE parameters SET slot = slot || '@' || ? WHERE NOT instr(slot, '@')", (before,)
    )
    connection.execute(
        "UPDATE parameters SET slot = replace(slot, '@' || ?, '') WHERE slot LIKE '%@' || ?",
        (bundle, bundle),
    )


def _numbers_aside(path: Path, suffix: str) -> list[int]:
    prefix = f"{path.name}.{suffix}-"
    tails = (found.name.removeprefix(prefix) for found in path.parent.glob(f"{prefix}*"))
    return sorted(int(tail) for tail in tails if tail.isdigit())


def _forget_oldest_aside(path: Path, suffix: str) -> None:
    """Disk is bounded: of the files set aside, the newest KEPT_ASIDE stay."""
    for number in _numbers_aside(path, suffix)[:-KEPT_ASIDE]:
        for ending in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}.{suffix}-{number}{ending}").unlink(missing_ok=True)
        log.warning("set_aside_forgotten path=%s number=%d", path, number)


def _lock(path: Path) -> IO[str] | None:
    """An advisory lock that the kernel lets go when the process dies, however it dies.

    None where the disk refuses the file, and a state is there already.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        if path.exists():
            return None
        raise StateUnusableError(path, str(error), REMEDY) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StateInUseError(path) from error
    return lock
