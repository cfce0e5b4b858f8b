"""A SQLite file in WAL mode with synchronous FULL: a commit is on the disk. One writer at a time.

Must never alter a file that is not this service's own.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from cloud.errors import StoreError

_MAGIC: Final = b"SQLite format 3\0"
_BUSY_S: Final = 10.0


def engine(path: Path, begin: str) -> Engine:
    """Connections whose transactions begin as `begin` says."""
    made = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
        hide_parameters=True,  # no payload in an error, and so none in a log
    )

    @event.listens_for(made, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin as `begin` says, below
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(made, "begin")
    def begin_transaction(connection: Connection) -> None:
        left_open: Any = connection.connection.dbapi_connection
        if left_open.in_transaction:
            left_open.rollback()  # SQLAlchemy does not, after a COMMIT that failed
        connection.exec_driver_sql(begin)

    return made


def reading_engine(path: Path) -> Engine:
    """Without a log beside it the file is all there is, and a reader needs no right to write."""
    log = path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"{path.resolve().as_uri()}?{mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def check_file(path: Path) -> None:
    """Raises StoreError: why it is no database, nor can become one."""
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


def use_wal(engine: Engine, path: Path) -> None:
    """Raises StoreError where the file system does not allow it."""
    connection = engine.raw_connection()
    try:
        mode = connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        connection.close()
    if mode != "wal":
        raise StoreError(path, f"it cannot use WAL ({mode})", "Put it on a local disk.")
