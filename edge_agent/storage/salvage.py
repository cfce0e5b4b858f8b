"""Read what is still readable out of a damaged or older state file, row by row, into a new one.

Must never alter the file that it reads, never believe a row that is not of the kind that its table
declares, and never take in another vehicle's messages or another bundle's parameters.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent.storage.first_page import opened
from edge_agent.storage.outbox import EVICTION_ORDER
from edge_agent.storage.salvage_rows import TROUBLE, Row, Table, rows_of, table_of
from edge_agent.storage.state_schema import DERIVED
from edge_agent.storage.stray_messages import stray_messages

OF_A_BUNDLE: Final = frozenset({"parameters", "kept_trace"})
OF_A_VEHICLE: Final = frozenset(
    {"anchor", "counter", "finished_trip", "parked_parameters", "refused", "running_trip"}
)
BULK: Final = frozenset({"outbox", "refused"})
_FIRST: Final = ("anchor", "parameters", "kept_trace", "counter")
_MESSAGES: Final = {"outbox": "payload", "kept_trace": "breach"}


@dataclass
class Salvaged:
    """By table: rows that are in the new file now, and places at which something is lost."""

    saved: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def salvage(
    source: Path,
    target: sqlite3.Connection,
    key: Mapping[str, str],
    without: frozenset[str] = frozenset(),
) -> Salvaged:
    """Copy what can be read and is `key`'s; breaches before everything else that waits.

    Raises sqlite3.Error for troubles of the *target* (a full disk); those of the source cost rows.
    """
    found = Salvaged()
    mark = f'"vehicle_id":"{key["vehicle_id"]}"'.encode()
    with opened(source) as connection:
        if connection is None:
            found.lost["everything"] += 1
        else:
            owner = _identity(connection)
            is_own = owner.get("vehicle_id") == key["vehicle_id"]
            mark = b"" if is_own else mark
            left = without | _not_for(key, owner)
            _copy_tables(connection, target, _tables(connection, target, left), mark, found)
    if "outbox" not in without and (found.lost["everything"] or found.lost["outbox"]):
        _copy_stray(source, target, mark, found)
    found.lost = +found.lost
    return found


def _not_for(key: Mapping[str, str], owner: Mapping[str, str]) -> frozenset[str]:
    """Tables that are of no use to another bundle, or to another vehicle."""
    is_same_bundle = owner.get("bundle", key["bundle"]) == key["bundle"]
    is_same_vehicle = owner.get("vehicle_id", key["vehicle_id"]) == key["vehicle_id"]
    left = frozenset() if is_same_bundle else OF_A_BUNDLE
    return left if is_same_vehicle else left | OF_A_VEHICLE


def _copy_tables(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    tables: list[Table],
    mark: bytes,
    found: Salvaged,
) -> None:
    for table in tables:
        rows = _Rows(table, mark, found)
        if table.name == "outbox":
            _copy(source, target, rows, lambda row: row["kind"] == "breach")
        _copy(source, target, rows, lambda _row: True)
    _keep_number_of_writes(source, target, found)


def _copy_stray(source: Path, target: sqlite3.Connection, mark: bytes, found: Salvaged) -> None:
    """What waits below a broken page."""
    insert = (
        "INSERT OR IGNORE INTO outbox (seq, message_id, kind, put_at, crc, payload) "
        "VALUES (?, ?, ?, ?, ?, ?)"
    )
    target.execute("BEGIN IMMEDIATE")
    try:
        with suppress(OSError):
            for message in stray_messages(source):
                if mark in message[-1] and message[2] in EVICTION_ORDER:
                    found.saved["outbox"] += target.execute(insert, message).rowcount
    finally:
        if target.in_transaction:
            target.execute("COMMIT")


def _identity(source: sqlite3.Connection) -> dict[str, str]:
    """Empty where it cannot be read; unless it is the vehicle's, each message must name it."""
    try:
        found = dict(source.execute("SELECT key, value FROM identity"))
    except TROUBLE:
        return {}
    return found if "vehicle_id" in found else {}


def _tables(
    source: sqlite3.Connection, target: sqlite3.Connection, without: frozenset[str]
) -> list[Table]:
    """Every table of the new file that the old one has, the small ones first."""
    rows = target.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    names = {row[0] for row in rows if not row[0].startswith("sqlite_")}
    ordered = sorted(names - DERIVED - without - {"identity"}, key=_place)
    return [table for name in ordered if (table := table_of(source, target, name)) is not None]


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


@dataclass(frozen=True)
class _Rows:
    table: Table
    mark: bytes
    found: Salvaged

    def lost(self) -> None:
        self.found.lost[self.table.name] += 1

    def is_whole(self, row: Row) -> bool:
        for value, (kind, may_be_null) in zip(row, self.table.kinds, strict=True):
            if not (isinstance(value, kind) or (value is None and may_be_null)):
                return False
        values = self.named(row)
        content = values.get(_MESSAGES.get(self.table.name, ""), self.mark)
        if self.table.name == "outbox" and values.get("kind") not in EVICTION_ORDER:
            return False  # read again, it would count as damage again
        crc = values.get("crc")
        return self.mark in content and (crc is None or crc == zlib.crc32(content))

    def named(self, row: Row) -> dict[str, Any]:
        return dict(zip(self.table.columns, row, strict=True))


def _copy(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    rows: _Rows,
    is_wanted: Callable[[dict[str, Any]], bool],
) -> None:
    """A row that is there already is left as it is."""
    table, found = rows.table, rows.found
    names, marks = ", ".join(table.columns), ", ".join("?" * len(table.columns))
    insert = f"INSERT OR IGNORE INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - ours
    found.lost[table.name] = 0
    target.execute("BEGIN IMMEDIATE")
    try:
        for row in rows_of(source, table, rows.lost):
            if not rows.is_whole(row):
                rows.lost()
            elif is_wanted(rows.named(row)):
                found.saved[table.name] += target.execute(insert, row).rowcount
    finally:
        if target.in_transaction:
            target.execute("COMMIT")


def _keep_number_of_writes(
    source: sqlite3.Connection, target: sqlite3.Connection, found: Salvaged
) -> None:
    """Parameters that were all read are as new as the file said; others give way to any copy."""
    target.execute("DELETE FROM parameter_writes")
    if found.lost["parameters"] or not found.saved["parameters"]:
        return
    with suppress(*TROUBLE, TypeError):
        number = source.execute("SELECT number FROM parameter_writes").fetchone()[0]
        if isinstance(number, int):
            target.execute("INSERT INTO parameter_writes VALUES (1, ?)", (number,))
