"""The rows of a table past its damaged pages: a page that cannot be read costs its own rows.

Must never raise for damage, and never go round in circles: the key always grows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

ROWS_AT_ONCE: Final = 64
ONE_BY_ONE: Final = 256
"""So many keys behind damage are tried each; from there on the steps double."""
LAST_KEY: Final = 2**62
_KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "INTEGER": int,
    "REAL": (float, int),
    "TEXT": str,
    "BLOB": bytes,
}
TROUBLE: Final = (sqlite3.Error, OverflowError, UnicodeError)

Row = Sequence[Any]


@dataclass(frozen=True)
class Table:
    """Of `kinds`, each says what its column may hold, and whether that may be NULL."""

    name: str
    columns: tuple[str, ...]
    kinds: tuple[tuple[type | tuple[type, ...], bool], ...]
    key: str
    is_numbered: bool


def table_of(source: sqlite3.Connection, target: sqlite3.Connection, name: str) -> Table | None:
    """A table of the new file as far as the old one has it; None where it has not.

    `table_info` rows are (number, name, type, not null, default, place in the key).
    """
    try:
        there = {row[1] for row in source.execute(f"PRAGMA table_info({name})")}
    except TROUBLE:
        return None
    declared = target.execute(f"PRAGMA table_info({name})").fetchall()
    shared = [row for row in declared if row[1] in there]
    key = next(row for row in declared if row[5] == 1)
    if key[1] not in there:
        return None
    return Table(
        name=name,
        columns=tuple(row[1] for row in shared),
        kinds=tuple((_KINDS[row[2]], not row[3] and not row[5]) for row in shared),
        key=key[1],
        is_numbered=key[2] == "INTEGER",
    )


def rows_of(source: sqlite3.Connection, table: Table, lost: Callable[[], None]) -> Iterator[Row]:
    """Those that can be read; `lost` is called for each gap."""
    walk = _by_number if table.is_numbered else _from_both_ends
    return walk(source, table, lost)


def _by_number(source: sqlite3.Connection, table: Table, lost: Callable[[], None]) -> Iterator[Row]:
    query = _select(table, f"{table.key} > ?", f"{table.key} LIMIT ?")
    place = table.columns.index(table.key)
    after, at_once = -1, ROWS_AT_ONCE
    while True:
        try:
            rows = source.execute(query, (after, at_once)).fetchall()
            is_last = len(rows) < at_once
        except TROUBLE:
            if at_once > 1:
                at_once = 1  # so that the rows before the damage are had
                continue
            lost()
            readable = _next_readable(source, table, after)
            if readable is None:
                return
            rows, is_last, at_once = [readable], False, ROWS_AT_ONCE
        for row in rows:
            if not isinstance(row[place], int) or row[place] <= after:
                lost()
                return
            after = row[place]
            yield row
        if is_last:
            return


def _next_readable(source: sqlite3.Connection, table: Table, after: int) -> Row | None:
    """The first row behind `after` that can be read again: stepping, then halving."""
    query = _select(table, f"{table.key} >= ?", f"{table.key} LIMIT 1")
    place = table.columns.index(table.key)

    def at(number: int) -> Row | None:
        try:
            row: Row | None = source.execute(query, (number,)).fetchone()
        except TROUBLE:
            return None
        is_behind = row is not None and isinstance(row[place], int) and row[place] >= number
        return row if is_behind else None

    low, step = after, 1
    while (found := at(after + step)) is None:
        low, step = after + step, step + 1 if step < ONE_BY_ONE else step * 2
        if after + step > LAST_KEY:
            return None
    high = after + step
    while high - low > 1:
        middle = (low + high) // 2
        nearer = at(middle)
        low, high, found = (middle, high, found) if nearer is None else (low, middle, nearer)
    return found


def _from_both_ends(
    source: sqlite3.Connection, table: Table, lost: Callable[[], None]
) -> Iterator[Row]:
    """With a text key: from the first on, and from the last back, to the damage."""
    for direction in ("ASC", "DESC"):
        try:
            yield from source.execute(_select(table, "1", f"{table.key} {direction}"))
        except TROUBLE:
            lost()
            continue
        return


def _select(table: Table, where: str, order: str) -> str:
    # NOT INDEXED: an index may be the damaged part
    names = ", ".join(table.columns)
    return f"SELECT {names} FROM {table.name} NOT INDEXED WHERE {where} ORDER BY {order}"  # noqa: S608 - ours
