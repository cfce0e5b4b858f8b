"""Make, check and upgrade the tables, in the transaction that opens a database.

Must never touch a database that is not this service's own, or a newer software's.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect

from cloud.errors import StoreError
from cloud.location import Location, PostgresUrl
from cloud.store import job_tables, migrations, postgres, triggers
from cloud.store.metadata import METADATA

_QUEUE: Final = "procrastinate_"
"""The tables of the task queue stand in the same database."""


def prepare(connection: Connection, location: Location) -> None:
    """An empty database gets its tables, and an older file new ones. Raises StoreError.

    An older PostgreSQL database may have other services on it: that is for `upgrade`.
    """
    if isinstance(location, PostgresUrl):
        postgres.wait_for_turn(connection)
    found = require_known(connection, location)
    if found is None:
        _make_tables(connection)
    elif found != migrations.HEAD and isinstance(location, PostgresUrl):
        remedy = "Stop the services and run `twin-cloud database upgrade`."
        raise _other_version(location, found, remedy)
    elif found != migrations.HEAD:
        migrations.upgrade(connection)
    if isinstance(location, PostgresUrl):
        job_tables.make(connection)


def upgrade(connection: Connection, location: Location) -> tuple[str | None, str]:
    """The versions before (None: empty) and after. Raises StoreError."""
    if isinstance(location, PostgresUrl):
        postgres.wait_for_turn(connection)
    found = require_known(connection, location)
    if found is None:
        _make_tables(connection)
    elif found != migrations.HEAD:
        migrations.upgrade(connection)
    if isinstance(location, PostgresUrl):
        job_tables.make(connection)
    return found, migrations.HEAD


def require_newest(connection: Connection, location: Location) -> None:
    """For who only reads. Raises StoreError."""
    found = require_known(connection, location)
    if found is None:
        raise StoreError(location, "it is empty", "Start the service on it once.")
    if found != migrations.HEAD:
        raise _other_version(location, found, "Start the service on it once.")


def require_known(connection: Connection, location: Location) -> str | None:
    """The version, one that can be brought up to date; None: it is empty. Raises StoreError."""
    found = migrations.version_of(connection)
    if found is None:
        names = inspect(connection).get_table_names()
        if any(not name.startswith(_QUEUE) for name in names):
            raise StoreError(location, "it is another program's", "Give another path or URL.")
    elif found not in {*migrations.RELEASED, migrations.HEAD}:
        remedy = "Use the software that wrote it, or a new database."
        raise _other_version(location, found, remedy)
    return found


def _make_tables(connection: Connection) -> None:
    METADATA.create_all(connection)
    triggers.create(connection)
    triggers.order_events(connection)
    migrations.stamp(connection)


def _other_version(location: Location, found: str, remedy: str) -> StoreError:
    problem = f"its tables have version {found}, this software knows {migrations.HEAD}"
    return StoreError(location, problem, remedy)
