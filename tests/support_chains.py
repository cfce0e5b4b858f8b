"""What the tests of the history share: to edit a database as somebody would who has it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, TextClause, create_engine

from cloud.location import Location


def tamper(location: Location, *statements: str | TextClause) -> None:
    """Edit the database while no trigger looks."""
    if isinstance(location, Path):
        engine = create_engine(f"sqlite:///{location}")
    else:
        engine = create_engine(location.full.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as db:
        _without_triggers(db)
        for statement in statements:
            if isinstance(statement, str):
                db.exec_driver_sql(statement)
            else:
                db.execute(statement)
    engine.dispose()


def _without_triggers(db: Connection) -> None:
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SET session_replication_role = replica")
        return
    names = db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='trigger'").scalars()
    for name in names.all():
        db.exec_driver_sql(f"DROP TRIGGER {name}")
