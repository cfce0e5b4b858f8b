"""The database: open it or say exactly why not; sessions that write, sessions that read.

A path is a SQLite file, a URL a PostgreSQL server. Must never alter a database that is not this
service's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session

from cloud.errors import StoreError, StoreUnavailableError
from cloud.location import Location, PostgresUrl
from cloud.store import events, postgres, preparing, sqlite


class Store:
    """Sessions on one database; readers see the last commit, whoever writes meanwhile.

    Within SQLite one writes at a time. Within PostgreSQL several do: see `cloud.store.locks`.
    """

    def __init__(self, location: Location, idle_s: float | None = None) -> None:
        """Open it: an empty database gets its tables, an older one new ones. Raises StoreError.

        `idle_s`: how long PostgreSQL lets this process stand still in a transaction (None: ever).
        """
        self.location = location
        self._turn: AbstractContextManager[object] = nullcontext()
        self._writer = _writing_engine(location, idle_s)
        if isinstance(location, PostgresUrl):
            self._reader = postgres.reading_engine(self._writer)
        else:
            self._turn = threading.Lock()
            self._reader = sqlite.engine(location, "BEGIN")
        with _opening(location, self.close):
            with self._writer.begin() as connection:
                preparing.prepare(connection, location)
            if isinstance(location, Path):
                sqlite.use_wal(self._writer, location)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, committed on leaving, rolled back on an exception.

        Raises StoreUnavailableError when the database itself fails, or when writers stood in each
        other's way: the same again may succeed.
        """
        with self._turn, _translated(), _session(self._writer) as session:
            yield session
            session.flush()
            events.write(session)
            session.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view. Raises StoreUnavailableError when the database itself fails."""
        with _translated(), _session(self._reader) as session:
            yield session
            _end_reading(session)

    def connections(self) -> dict[str, Callable[[], int]]:
        """How many connections are in use and idle, for whoever asks now and then."""
        pools = {id(engine.pool): engine.pool for engine in (self._writer, self._reader)}
        queued = [pool for pool in pools.values() if isinstance(pool, QueuePool)]
        return {
            "busy": lambda: sum(pool.checkedout() for pool in queued),
            "idle": lambda: sum(pool.checkedin() for pool in queued),
        }

    def close(self) -> None:
        """Give the database back."""
        self._writer.dispose()
        self._reader.dispose()


class Reader:
    """Sessions that read a database which must exist; nothing is written, not even beside it."""

    def __init__(self, location: Location) -> None:
        """Raises StoreError."""
        self._engine = _reading_engine(location)
        with _opening(location, self.close), self._engine.begin() as connection:
            preparing.require_newest(connection, location)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view. Raises StoreUnavailableError when the database itself fails."""
        with _translated(), _session(self._engine) as session:
            yield session
            _end_reading(session)

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()


def upgrade(location: Location) -> tuple[str | None, str]:
    """Bring a database up to date, or make its tables; its versions before (None) and after.

    Raises StoreError.
    """
    engine = _writing_engine(location)
    with _opening(location, engine.dispose), engine.begin() as connection:
        versions = preparing.upgrade(connection, location)
    engine.dispose()
    return versions


def version_of(location: Location) -> str | None:
    """The version of its tables; None: it is empty. Raises StoreError."""
    engine = _reading_engine(location)
    with _opening(location, engine.dispose), engine.begin() as connection:
        found = preparing.require_known(connection, location)
    engine.dispose()
    return found


def _writing_engine(location: Location, idle_s: float | None = None) -> Engine:
    if isinstance(location, PostgresUrl):
        return postgres.writing_engine(location, idle_s)
    sqlite.check_file(location)
    return sqlite.engine(location, "BEGIN IMMEDIATE")


def _reading_engine(location: Location) -> Engine:
    if isinstance(location, PostgresUrl):
        return postgres.reading_engine(postgres.writing_engine(location))
    if not location.exists():
        problem = "there is no such file"
        raise StoreError(location, problem, "Give the [store] path of the service.")
    sqlite.check_file(location)
    return sqlite.reading_engine(location)


@contextmanager
def _opening(location: Location, close: Callable[[], None]) -> Iterator[None]:
    """Close again what cannot be used. Raises StoreError."""
    try:
        yield
    except DBAPIError as error:
        close()
        remedy = "Free it, or restore a backup."
        if isinstance(location, PostgresUrl):
            remedy = "Start the server, correct the URL, or let the owner of its tables make them: "
            remedy += "`twin-cloud database upgrade`."
        raise StoreError(location, str(error.orig).strip(), remedy) from error
    except StoreError:
        close()
        raise


def _session(engine: Engine) -> Session:
    """Rows outlive their transaction; what was added is written at once, at the end."""
    return Session(engine, expire_on_commit=False, autoflush=False)


def _end_reading(session: Session) -> None:
    """By a commit of nothing: after a rollback psycopg forgets every statement it has prepared."""
    session.expunge_all()
    session.commit()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailableError(error) from error
    except DBAPIError as error:
        # The other subclasses of DatabaseError blame the statement, not the database; but the
        # server's word that it has ended a connection may come as any of them.
        blames_database = isinstance(error, OperationalError | InterfaceError)
        if blames_database or error.connection_invalidated or type(error) is DatabaseError:
            raise StoreUnavailableError(error.orig or error) from error
        raise
