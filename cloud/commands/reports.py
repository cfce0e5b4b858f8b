"""What the command line shows of a database: tables for people, JSON for programs.

Must never write to the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.table import Column, Table
from sqlmodel import Session

from cloud.api import views
from cloud.bundles import Catalogue
from cloud.commands.console import wide_console
from cloud.location import Location
from cloud.store import pages, revisions
from cloud.store.database import Reader
from cloud.store.tables import ProvisionalRow, Vehicle

_ALL = 1_000_000


def history(database: Location, vehicle_id: str, *, as_json: bool) -> bool:
    """Print a vehicle's revisions; False when there is no such vehicle. Raises StoreError."""
    store = Reader(database)
    with store.read() as db:
        is_known = db.get(Vehicle, vehicle_id) is not None
        rows = pages.revisions(db, None, _ALL, vehicle_id=vehicle_id)
        own = [(row, revisions.made_of(db, row)) for row in _provisionals(db, vehicle_id)]
    store.close()
    nothing = Catalogue([])
    items = [views.revision_item(row, nothing).model_dump(mode="json") for row in rows]
    flat = [{**item, **item["cause"]} for item in items]
    beside = [views.provisional_item(*one, nothing).model_dump(mode="json") for one in own]
    beside = [{"kind": "provisional", "created_at": one["made_at"], **one} for one in beside]
    flat = sorted(flat + beside, key=lambda row: float(row["odometer"]), reverse=True)
    columns = ["number", "created_at", "odometer", "kind", "base", "prior_version"]
    columns += ["error_before_v", "error_after_v"]
    if is_known:
        columns += ["verdict", "verdict_reason"] + (["step", "replaced_by"] if beside else [])
        show(items + beside if as_json else flat, columns, as_json=as_json)
    return is_known


def _provisionals(db: Session, vehicle_id: str) -> Sequence[ProvisionalRow]:
    return pages.provisionals(db, None, _ALL, vehicle_id=vehicle_id)


def quarantine(database: Location, *, as_json: bool) -> None:
    """Print the refused messages. Raises StoreError."""
    store = Reader(database)
    with store.read() as db:
        rows = pages.quarantined(db, None, _ALL, cohorts=None)
    store.close()
    items = [views.quarantine_item(row).model_dump(mode="json") for row in rows]
    show(items, ["received_at", "times", "topic", "error", "reason"], as_json=as_json)


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: JSON for programs, these columns as a table for people."""
    console = wide_console()
    if as_json:
        text = msgspec.json.format(msgspec.json.encode(list(rows)), indent=2).decode()
        console.out(text, highlight=False)
        return
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table if table.row_count else "nothing", markup=False)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
