"""From the tables of an older version to this one's, step by step, by Alembic.

To add or change something, while the newest version is not released:

1. Declare it in the module of tables. A column of an existing table comes last, and has a
   `server_default` unless it may be null.
2. A new table needs no more: `versions/version_4.py` makes what is missing. For a new column or
   index append SQLite's statement to `STATEMENTS` there, word for word as SQLAlchemy makes it; the
   few words that PostgreSQL spells otherwise are translated (`statements.py`).
3. For a rule that the database shall keep, add a `Rule` to `cloud.store.triggers`, and a call of
   `triggers.create` in `version_4.py`.
4. `pytest tests/test_cloud_migrations.py` compares an upgraded database with a new one, on both.

When a version is released, its file is frozen: new tables are written out as statements, and the
next change begins the next file. There is no way down: a database goes back by its backup.
Must never touch what a revision says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

HEAD: Final = "4"
RELEASED: Final = ("1", "2", "3")
"""The versions that there are databases of; before version 4 a file kept it in `schema_version`."""


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Within the connection's transaction."""
    from alembic import command  # noqa: PLC0415  # needed seldom, and slow to load
    from alembic.config import Config  # noqa: PLC0415

    _adopt(connection)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(config, to)


def stamp(connection: Connection, version: str = HEAD) -> None:
    """Note the version of tables that were made at once, as Alembic would."""
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    insert = text("INSERT INTO alembic_version (version_num) VALUES (:version)")
    connection.execute(insert, {"version": version})


def version_of(connection: Connection) -> str | None:
    """The version of a database's tables; None: it has none of this service's."""
    names = inspect(connection).get_table_names()
    if "alembic_version" in names:
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    elif "schema_version" in names:
        found = connection.scalar(text("SELECT version FROM schema_version"))
    else:
        return None
    return str(found)


def _adopt(connection: Connection) -> None:
    """A file of a version that did not know Alembic."""
    if not inspect(connection).has_table("alembic_version"):
        found = version_of(connection)
        if found is not None:
            stamp(connection, found)
