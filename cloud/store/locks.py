"""Who may write of a vehicle now: its row is locked first, and rows in the order of their ids.

So two writers never decide on the same vehicle at once, and never wait for each other in a circle.
On SQLite, where a transaction that writes is alone, a lock costs nothing. Must never be taken by
who only reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Table, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from cloud.store.membership import among
from cloud.store.portable import is_postgres
from cloud.store.tables import Vehicle

_LOCKED = (
    select(Vehicle)
    .where(among(Vehicle.vehicle_id, "ids"))
    .order_by(col(Vehicle.vehicle_id))
    .with_for_update()
    .execution_options(populate_existing=True)
)


def vehicles(db: Session, vehicle_ids: Collection[str]) -> dict[str, Vehicle]:
    """These vehicles as they are now, held until the transaction ends."""
    if not vehicle_ids:
        return {}
    rows = db.exec(_LOCKED, params={"ids": list(vehicle_ids)})
    return {row.vehicle_id: row for row in rows}


def add_vehicles(db: Session, vehicle_ids: Collection[str], now: float) -> None:
    """Those of these that are not there yet; another writer may add them at the same time."""
    if vehicle_ids:
        template = Vehicle(vehicle_id="", first_seen_at=now).model_dump(exclude_none=True)
        add_missing(db, Vehicle, [template | {"vehicle_id": one} for one in sorted(vehicle_ids)])


def add_missing(db: Session, kind: type[SQLModel], rows: Sequence[dict[str, object]]) -> None:
    """Insert rows; one whose key is taken is left as it stands."""
    table: Table = kind.__table__  # type: ignore[attr-defined]
    insert = postgresql.insert if is_postgres(db) else sqlite.insert
    db.connection().execute(insert(table).on_conflict_do_nothing(), rows)


def exclusive(db: Session, what: str) -> None:
    """Be the only one that does `what`, until the transaction ends."""
    if is_postgres(db):
        key = func.hashtextextended(what, 0)
        db.connection().execute(select(func.pg_advisory_xact_lock(key)))
