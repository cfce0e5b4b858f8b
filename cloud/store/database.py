"""The database file: open it or say exactly why not; sessions that write, sessions that read.

SQLite in WAL mode with synchronous FULL: a commit is on the disk. Must never alter a file that is
not this service's own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from cloud.errors import StoreError, StoreUnavailableError
from cloud.store import migrations
from cloud.store.metadata import METADATA
from cloud.store.tables import SCHEMA_VERSION, TRIGGERS

_MAGIC = b"SQLite format 3\0"
_BUSY_S = 10.0


class Store:
    """Sessions on one database. One writer at a time; readers see the last commit meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open `path`: a new file gets its tables, an older one new ones. Raises StoreError."""
        self.path = path
        _check_file(path)
        self._lock = threading.Lock()
        self._writer = _engine(path, "BEGIN IMMEDIATE")
        self._reader = _engine(path, "BEGIN")
        with _opening(path, self.close):
            _prepare(self._writer, path)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, committed on leaving, rolled back on an exception.

        Raises StoreUnavailableError when the database itself fails.
        """
        with self._lock, _translated(), _session(self._writer) as session:
            yield session
            session.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view. Raises StoreUnavailableError when the database itself fails."""
        with _translated(), _session(self._reader) as session:
            yield session

    def close(self) -> None:
        """Give the file back."""
        self._writer.dispose()
        self._reader.dispose()


class Reader:
    """Sessions that read a database which must exist; nothing is written, not even beside it."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError."""
        if not path.exists():
            raise StoreError(path, "there is no such file", "Give the [store] path of the service.")
        _check_file(path)
        self._engine = _reading_engine(path)
        with _opening(path, self.close), self._engine.begin() as connection:
            tables = connection.scalars(text("SELECT name FROM sqlite_master"))
            found = _version(connection, set(tables), path)
            if found < SCHEMA_VERSION:
                raise _other_version(path, found, "Start the service on it once.")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view. Raises StoreUnavailableError when the database itself fails."""
        with _translated(), _session(self._engine) as session:
            yield session

    def close(self) -> None:
        """Give the file back."""
        self._engine.dispose()


@contextmanager
def _opening(path: Path, close: Callable[[], None]) -> Iterator[None]:
    """Close again what cannot be used. Raises StoreError."""
    try:
        yield
    except DatabaseError as error:
        close()
        raise StoreError(path, str(error.orig), "Free it, or restore a backup.") from error
    except StoreError:
        close()
        raise


def _reading_engine(path: Path) -> Engine:
    """Without a log beside it the file is all there is, and a reader needs no right to write."""
    log = path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"{path.resolve().as_uri()}?{mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _session(engine: Engine) -> Session:
    """Rows outlive their transaction; what was added is written at once, at the end."""
    return Session(engine, expire_on_commit=False, autoflush=False)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        # Its subclasses apart from OperationalError blame the statement, not the file.
        if isinstance(error, OperationalError) or type(error) is DatabaseError:
            raise StoreUnavailableError(error.orig or error) from error
        raise


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        _check_folder(path)
        return
    except OSError as error:
        raise StoreError(path, f"it cannot be read ({error.strerror})", "Free it.") from error
    if head and head != _MAGIC:
        raise StoreError(path, "it is no SQLite file", "Give another path, or move it away.")


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise StoreError(path, "its folder does not exist", "Make the folder.")


def _engine(path: Path, begin: str) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": _BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin as `begin` says, below
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        left_open: Any = connection.connection.dbapi_connection
        if left_open.in_transaction:
            left_open.rollback()  # SQLAlchemy does not, after a COMMIT that failed
        connection.exec_driver_sql(begin)

    return engine


def _prepare(engine: Engine, path: Path) -> None:
    with engine.begin() as connection:
        tables = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type='table'")))
        if tables:
            found = _version(connection, tables, path)
            if found < SCHEMA_VERSION:
                migrations.upgrade(connection, found)
        else:
            METADATA.create_all(connection)
            for trigger in TRIGGERS:
                connection.exec_driver_sql(trigger)
            connection.execute(
                text("INSERT INTO schema_version VALUES (:version)"), {"version": SCHEMA_VERSION}
            )
    _use_wal(engine, path)


def _version(connection: Connection, tables: set[str], path: Path) -> int:
    """One that this software reads, or can bring up to date. Raises StoreError."""
    if "schema_version" not in tables:
        raise StoreError(path, "it is another program's", "Give another path.")
    found = connection.scalar(text("SELECT version FROM schema_version"))
    if not isinstance(found, int) or not migrations.OLDEST <= found <= SCHEMA_VERSION:
        raise _other_version(path, found, "Use the software that wrote it, or a new path.")
    return found


def _other_version(path: Path, found: object, remedy: str) -> StoreError:
    problem = f"its tables have version {found}, this software knows {SCHEMA_VERSION}"
    return StoreError(path, problem, remedy)


def _use_wal(engine: Engine, path: Path) -> None:
    connection = engine.raw_connection()
    try:
        mode = connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        connection.close()
    if mode != "wal":
        raise StoreError(path, f"it cannot use WAL ({mode})", "Put it on a local disk.")
