"""The same tables on SQLite and PostgreSQL: whole numbers of 64 bits, text compared bytewise.

An index with `sqlite_where` covers only those rows on PostgreSQL, too. Said once, for every table,
as it is declared. Must be imported before any table is declared;
importing anything from `cloud.store` does that.
"""

from __future__ import annotations

from sqlalchemy import TEXT, BigInteger, Index, Integer, MetaData, String, Table, event
from sqlmodel import AutoString, Session, SQLModel


def is_postgres(db: Session) -> bool:
    """Which of the two it is, where their words differ."""
    return db.get_bind().dialect.name == "postgresql"


@event.listens_for(Table, "after_parent_attach")
def _make_portable(table: Table, metadata: MetaData) -> None:
    if metadata is not SQLModel.metadata:
        return
    for column in table.columns:
        if type(column.type) is Integer:
            column.type = BigInteger().with_variant(Integer(), "sqlite")
        elif isinstance(column.type, AutoString):
            column.type = String().with_variant(TEXT(collation="C"), "postgresql")


@event.listens_for(Index, "after_parent_attach")
def _make_partial(index: Index, table: Table) -> None:
    condition = index.dialect_options["sqlite"]["where"]
    if table.metadata is SQLModel.metadata and condition is not None:
        index.dialect_options["postgresql"]["where"] = condition
