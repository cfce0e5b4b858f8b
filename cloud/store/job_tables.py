"""The tables of the task queue, procrastinate's own, in the service's PostgreSQL database.

Nothing in them needs a backup, and nothing that they hold is the truth. Another major version of
procrastinate may need its own migration. Must never touch a table of the service.
"""

from __future__ import annotations

from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, text


def make(connection: Connection) -> None:
    """Make them, unless they are there."""
    if connection.scalar(text("SELECT to_regclass('procrastinate_jobs')")) is not None:
        return
    driver = connection.connection.dbapi_connection
    assert driver is not None  # noqa: S101 - the connection is in use
    cursor = driver.cursor()
    cursor.execute(SchemaManager.get_schema())  # many statements: not by SQLAlchemy
    cursor.close()
