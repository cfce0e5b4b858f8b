"""Write many rows of one table at once: on PostgreSQL all of them in one statement, as JSON.

A statement for each row, prepared and pipelined, costs several times as much on both sides. SQLite,
which has no way to go, is fastest with a statement for each. JSON has no NaN: what is not finite
becomes NULL on PostgreSQL. Must never change the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Column, LargeBinary, Table, bindparam, insert, text, update
from sqlalchemy.dialects import postgresql
from sqlmodel import Session

from cloud.store.portable import is_postgres

Row = Mapping[str, object]

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


class Insert:
    """Rows of these columns into a table; the others have what the database gives them."""

    def __init__(self, table: Table, names: Sequence[str], unless: str = "") -> None:
        """`unless` is a condition in SQL on a row `r`: where it holds the row is left out."""
        columns = ", ".join(f'"{name}"' for name in names)
        values = ", ".join(_value(table.c[name]) for name in names)
        left_out = f" WHERE NOT ({unless})" if unless else ""
        self._whole = text(
            f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM {_rows(table, names)}"  # noqa: S608  # names of ours
            + left_out
        )
        self._each: Any = insert(table)
        if unless:
            given = ", ".join(f':{name} AS "{name}"' for name in names)
            self._each = text(
                f"INSERT INTO {table.name} ({columns}) SELECT {columns} "  # noqa: S608
                f"FROM (SELECT {given}) AS r{left_out}"
            )

    def execute(self, db: Session, rows: Sequence[Row]) -> None:
        """Write them, the first one first."""
        if not rows:
            return
        if is_postgres(db):
            db.connection().execute(self._whole, {"rows": _as_json(rows)})
        else:
            db.connection().execute(self._each, rows)


class Update:
    """Columns `names` of the rows of a table whose `key` is given."""

    def __init__(self, table: Table, key: str, names: Sequence[str], only: str = "") -> None:
        """`only` is a condition in SQL on the rows of the table: others stay as they are."""
        also = f" AND {only}" if only else ""
        changes = ", ".join(f'"{name}" = {_value(table.c[name])}' for name in names)
        kind = _type(table.c[key]).partition(" ")[0]  # without its collation
        # By the list of keys it comes to the index however large the table was when it was planned.
        self._whole = text(
            f"UPDATE {table.name} SET {changes} FROM {_rows(table, [key, *names])} "  # noqa: S608
            f'WHERE {table.name}."{key}" = r."{key}" '
            f'AND {table.name}."{key}" = ANY (CAST(:keys AS {kind}[])){also}'
        )
        each = update(table).where(table.c[key] == bindparam(f"{key}_"))
        if only:
            each = each.where(text(only))
        self._each = each.values({name: bindparam(f"{name}_") for name in names})
        self._key = key

    def execute(self, db: Session, rows: Sequence[Row]) -> int:
        """Write them; how many there were. No two rows may have the same key."""
        if not rows:
            return 0
        if is_postgres(db):
            given = {"rows": _as_json(rows), "keys": [row[self._key] for row in rows]}
            return db.connection().execute(self._whole, given).rowcount
        renamed = [{f"{name}_": value for name, value in row.items()} for row in rows]
        return db.connection().execute(self._each, renamed).rowcount


def _rows(table: Table, names: Sequence[str]) -> str:
    columns = ", ".join(f'"{name}" {_type(table.c[name], as_json=True)}' for name in names)
    return f"json_to_recordset(CAST(:rows AS json)) AS r({columns})"


def _type(column: Column[Any], *, as_json: bool = False) -> str:
    if as_json and isinstance(column.type, LargeBinary):
        return "text"
    return str(column.type.compile(_DIALECT))


def _value(column: Column[Any]) -> str:
    value = f'r."{column.name}"'
    return f"decode({value}, 'base64')" if isinstance(column.type, LargeBinary) else value


def _as_json(rows: Sequence[Row]) -> str:
    return msgspec.json.encode(rows).decode()
