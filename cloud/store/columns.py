"""Some columns of a table as objects of their own: read at once, held, and written back at once.

Rows of a session cost several times as much, most of all where a row has fifty columns and a
message changes five. Must never be used beside the whole row in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Generic, TypeVar

from sqlalchemy import Table, select
from sqlmodel import Session

from cloud.store.bulk import Update
from cloud.store.membership import among
from cloud.store.tables import Vehicle

T = TypeVar("T")


class VehicleColumns(Generic[T]):
    """The columns of Vehicle that the fields of a dataclass `kind` name, `vehicle_id` first."""

    def __init__(self, kind: type[T], *, only_read: Collection[str]) -> None:
        table: Table = Vehicle.__table__  # type: ignore[attr-defined]
        names = tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined]
        self._kind = kind
        self._written = [name for name in names if name not in only_read]
        self._locked = (
            select(*(table.c[name] for name in names))
            .where(among(table.c.vehicle_id, "ids"))
            .order_by(table.c.vehicle_id)
            .with_for_update()
        )
        changed = [name for name in self._written if name != "vehicle_id"]
        self._update = Update(table, "vehicle_id", changed)

    def locked(self, db: Session, vehicle_ids: Collection[str]) -> dict[str, T]:
        """Of these vehicles as they are now, held until the transaction ends (`locks`)."""
        if not vehicle_ids:
            return {}
        rows: Iterable[Any] = db.connection().execute(self._locked, {"ids": list(vehicle_ids)})
        return {row.vehicle_id: self._kind(*row) for row in rows}

    def write(self, db: Session, changed: Iterable[T]) -> None:
        """Write them back."""
        rows = [{name: getattr(one, name) for name in self._written} for one in changed]
        self._update.execute(db, rows)
