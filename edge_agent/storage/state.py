"""The agent's state on disk: one SQLite file, opened whole, or begun anew with what can be saved.

What is committed in a `transaction()` survives a power cut, at one fsync; what may be lost to one
costs none. A disk that refuses even the opening leaves what can be read, and every transaction
tries again. Must never run another bundle's parameters, and never restore another vehicle's state;
a damaged file is renamed, for a person to look at.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_agent.bundle_update import parked_parameters
from edge_agent.errors import StateUnusableError, StorageError
from edge_agent.storage import parameter_copy, replacement, stored_parameters
from edge_agent.storage.aside import put_aside, remove_all
from edge_agent.storage.salvage import BULK, Salvaged, salvage
from edge_agent.storage.state_file import (
    close_without_checkpoint,
    connect,
    connect_in_memory,
    connect_to_read,
    has_own_tables,
    has_stray_log,
    is_damage,
)
from edge_agent.storage.state_lock import locked
from edge_agent.storage.state_schema import FORMAT

log = logging.getLogger(__name__)


class State:
    """The open state file. Use from one thread; `transaction()` is the only way to write."""

    def __init__(self, path: Path, vehicle_id: str, bundle: str) -> None:
        """Raises StateInUseError (another agent holds it), StateUnusableError (it is no state).

        A state that cannot be written is read, if nothing else is possible.
        """
        self.path = path
        self.set_aside: list[Path] = []
        self._key = {"vehicle_id": vehicle_id, "bundle": bundle, "format": str(FORMAT)}
        self._is_read_only = False
        self._is_durable = True
        self._damage: str | None = None
        self._is_costly = False
        self._tries = 0
        self._copied_writes = -1
        self._lock = locked(path)
        try:
            self.connection = self._open()
        except BaseException:
            self._unlock()
            raise
        self._copy_parameters()

    @contextmanager
    def transaction(self, *, may_be_lost: bool = False) -> Iterator[sqlite3.Connection]:
        """Commit on success, roll back on any error. Raises StorageError for a disk's troubles.

        With `may_be_lost` a power cut may take it back, whole: with the next transaction that may
        not be lost it is on the disk, too.
        """
        self._open_again()
        try:
            self._set_durable(not may_be_lost)
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                self.note(error)
                raise StorageError(self.path, str(error)) from error
            raise
        if not may_be_lost:
            self._copy_parameters()

    def note(self, error: Exception) -> bool:
        """Whether an error shows that the file is broken: then a new one is begun, now or soon."""
        if not (is_damage(error) or is_damage(error.__cause__)):
            return False
        self._damage = str(error)
        return True

    def mend(self) -> None:
        """Where damage was noted: begin a new file with what can be saved. Never raises."""
        if self._damage is not None:
            with suppress(StorageError):
                self._open_again()

    def copied_parameters(self) -> parameter_copy.ParameterCopy | None:
        """The parameters that stand beside the state."""
        return parameter_copy.read(self.path, self._key)

    def stored_slots(self) -> list[stored_parameters.Slots]:
        """Of the file and of the copy beside it, the newer first; at least one. Never raises."""
        copy = self.copied_parameters()
        for _again in range(2):
            try:
                return stored_parameters.slots(self.connection, copy)
            except sqlite3.Error as error:
                log.warning("parameters_not_read path=%s error=%s", self.path, error)
                self.note(error)
                self.mend()
        return stored_parameters.of_copy(copy) or [{}]

    def close(self) -> None:
        """Close the file and let go of the lock."""
        close_without_checkpoint(self.connection, self.path)
        self._unlock()

    def _set_durable(self, is_durable: bool) -> None:  # noqa: FBT001 - what the pragma takes
        """With NORMAL a commit is only written; with FULL it waits for the disk, log and all."""
        if is_durable != self._is_durable:
            self.connection.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
            self._is_durable = is_durable

    def _roll_back(self) -> None:
        """A disk in trouble may refuse even this; the next transaction then tries again."""
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # ---- opening ------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """To be written; else what can be read: the file itself, or its small tables in memory."""
        try:
            return self._open_to_write()
        except (sqlite3.Error, OSError) as error:
            self._is_read_only = True
            told = "state_read_only path=%s why=%r: trying again"
            log.error(told, self.path, str(error))  # noqa: TRY400 - it names the cause
        return self._open_to_read()

    def _open_again(self) -> None:
        """Before a transaction: perhaps the disk has come back. Raises StorageError."""
        if not self._is_read_only and self._damage is None:
            return
        self._tries += 1
        if self._is_costly and not _is_time(self._tries):
            raise StorageError(self.path, str(self._damage))
        # first of all: a connection that stays keeps the new one from writing, and closed later
        # it would take the new file's log for its own
        close_without_checkpoint(self.connection, self.path)
        try:
            self.connection = self._open_to_write()
        except (sqlite3.Error, OSError, StateUnusableError) as error:
            self.connection, self._is_read_only = self._open_to_read(), True
            raise StorageError(self.path, str(error)) from error
        self._is_read_only, self._is_durable, self._tries = False, True, 0
        self._lock = self._lock or locked(self.path)

    def _open_to_write(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StateUnusableError(self.path, "it is a folder", "Give another path.")
        replacement.finish_interrupted(self.path)
        if has_stray_log(self.path):
            self._tell_aside(put_aside(self.path, "damaged"), "its database is gone", None)
        try:
            if self._damage is None:
                return self._connect()
            why = self._damage
        except sqlite3.Error as error:
            if not is_damage(error):
                raise  # a full or read-only disk is no damage
            why = str(error)
        return self._begin_anew(f"it is damaged ({why})", "damaged")

    def _connect(self) -> sqlite3.Connection:
        """The file as it is, or brought up to date."""
        key = self._key
        with _closed_on_error(connect(self.path)) as connection:
            found = dict(connection.execute("SELECT key, value FROM identity"))
            is_other = bool(found) and found != {**key, "bundle": found.get("bundle")}
            if not is_other and has_own_tables(connection):
                self._make_own(connection, is_another_bundle=bool(found) and found != key)
                return connection
        connection.close()
        if is_other:
            return self._begin_anew(f"it belongs to {found}", "other")
        return self._begin_anew("its tables are not this version's", "older")

    def _make_own(self, connection: sqlite3.Connection, *, is_another_bundle: bool = False) -> None:
        """Under this vehicle's name and bundle, with what only the parameters' copy has."""
        connection.execute("BEGIN IMMEDIATE")
        if is_another_bundle:
            _change_bundle(connection, self._key["bundle"])
            log.warning("bundle_changed path=%s: parameters begin anew", self.path)
        connection.executemany(
            "INSERT OR IGNORE INTO identity VALUES (?, ?)", list(self._key.items())
        )
        copy = self.copied_parameters()
        stored_parameters.take_copy(connection, copy, is_emptied=is_another_bundle)
        connection.execute("COMMIT")

    def _begin_anew(self, why: str, suffix: str) -> sqlite3.Connection:
        self._is_costly = True
        aside, found = replacement.replace(self.path, suffix, self._key)
        connection = connect(self.path)
        with _closed_on_error(connection):
            self._make_own(connection)
            if suffix == "damaged":
                stored_parameters.count_damage(connection, found)
        self._damage, self._is_costly = None, False
        if suffix == "older" and not found.lost:
            remove_all(aside)
            log.warning("state_brought_up_to_date path=%s rows=%d", self.path, found.saved.total())
            return connection
        self._tell_aside(aside, why, found)
        return connection

    def _tell_aside(self, aside: Path, why: str, found: Salvaged | None) -> None:
        self.set_aside.append(aside)
        saved, lost = (dict(found.saved), dict(found.lost)) if found else ({}, {})
        told = "state_set_aside path=%s kept_as=%s why=%r saved=%s lost=%s"
        log.error(told, self.path, aside, why, saved, lost)

    # ---- a disk that refuses --------------------------------------------------------------------

    def _open_to_read(self) -> sqlite3.Connection:
        return self._whole_to_read() or self._saved_in_memory()

    def _whole_to_read(self) -> sqlite3.Connection | None:
        """The state as it stands, when it is sound and this vehicle's own."""
        if self._damage is not None or not self.path.is_file():
            return None
        with suppress(sqlite3.Error):
            connection = connect_to_read(self.path)
            with suppress(sqlite3.Error):
                found = dict(connection.execute("SELECT key, value FROM identity"))
                if found == self._key and has_own_tables(connection):
                    return connection
            connection.close()
        return None

    def _saved_in_memory(self) -> sqlite3.Connection:
        """What the agent drives on: all but the messages, which stay where they are."""
        connection = connect_in_memory()
        with suppress(sqlite3.Error, OSError):
            if self.path.is_file():
                salvage(self.path, connection, self._key, without=BULK)
        stored_parameters.take_copy(connection, self.copied_parameters())
        return connection

    def _copy_parameters(self) -> None:
        """After each change of the parameters. A copy that fails is tried with the next commit."""
        if self._is_read_only:
            return
        try:
            writes = stored_parameters.number_of_writes(self.connection)
            if writes != self._copied_writes:
                copy = stored_parameters.copy_of(self.connection, self._key, writes)
                found = self.copied_parameters()
                if found is None or (found.writes, found.slots) != (writes, copy.slots):
                    parameter_copy.write(self.path, copy)
                self._copied_writes = writes
        except (sqlite3.Error, OSError) as error:
            self.note(error)
            log.warning("parameters_not_copied path=%s error=%s", self.path, error)


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _is_time(tries: int) -> bool:
    """To save what is in a damaged file once more: soon, then seldom."""
    return tries & (tries - 1) == 0 or tries % 1024 == 0


def _change_bundle(db: sqlite3.Connection, bundle: str) -> None:
    """What was measured stays to be sent; what was calibrated belongs to the other model."""
    parked_parameters.exchange(db, bundle)
    db.execute("DELETE FROM kept_trace")
    db.execute("UPDATE identity SET value = ? WHERE key = 'bundle'", (bundle,))
