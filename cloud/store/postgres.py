"""A PostgreSQL database: pooled connections, transactions that write, snapshots that only read.

Several processes write at once: what a writer decides on it locks first (`cloud.store.locks`).
Must never show a password.
"""

from __future__ import annotations

import time
from typing import Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from cloud.location import PostgresUrl

_IN_TRANSACTION: Final = psycopg.pq.TransactionStatus.INTRANS
_POOL: Final = 5
_MORE: Final = 15
_WAIT_S: Final = 10.0
_FRESH_S: Final = 1.0
"""A connection that was used within this time is not asked whether it still lives."""
_OPENING: Final = 7_469_003_201  # the advisory lock of who makes or upgrades the tables


def writing_engine(url: PostgresUrl, idle_s: float | None = None) -> Engine:
    """READ COMMITTED: after a lock was waited for, the next statement sees what was committed.

    A process that stands still in a transaction for `idle_s`, its machine paused, loses the
    connection, and with it the rows that it holds.
    """
    options = {"lock_timeout": _WAIT_S, "idle_in_transaction_session_timeout": idle_s or 0.0}
    made = create_engine(
        make_url(url.full).set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # no payload in an error, and so none in a log
        pool_size=_POOL,
        max_overflow=_MORE,
        pool_timeout=_WAIT_S,
        connect_args={
            "connect_timeout": int(_WAIT_S),
            "application_name": "twin-cloud",
            "options": " ".join(f"-c {name}={int(1000 * s)}" for name, s in options.items()),
        },
    )

    @event.listens_for(made, "checkin")
    def end_transaction(connection: psycopg.Connection | None, _record: object) -> None:
        if connection is not None and connection.info.transaction_status == _IN_TRANSACTION:
            connection.rollback()  # SQLAlchemy does not, after a COMMIT that failed

    @event.listens_for(made, "checkin")
    def note_use(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(made, "checkout")
    def ask_whether_it_lives(
        connection: psycopg.Connection, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        if time.monotonic() - record.info.get("used_at", time.monotonic()) > _FRESH_S:
            try:
                made.dialect.do_ping(connection)  # type: ignore[arg-type]  # it is its own
            except psycopg.Error as error:
                raise DisconnectionError from error

    return made


def reading_engine(writing: Engine) -> Engine:
    """The same connections; a transaction sees one state of the database, and cannot write."""
    return writing.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def wait_for_turn(connection: Connection) -> None:
    """One process at a time makes or upgrades the tables."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _OPENING})
