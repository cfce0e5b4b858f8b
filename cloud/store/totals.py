"""What trips, breaches and verdicts change of their vehicle, without the rest of the row.

Most of a vehicle's row is nothing to most messages: read and written as plain columns they cost
half. Must never be used beside the whole row in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, bindparam, select, update
from sqlmodel import Session

from cloud.store.membership import among
from cloud.store.tables import Vehicle


@dataclass(slots=True)
class Totals:
    """As the columns of Vehicle; `cohort` is only read."""

    vehicle_id: str
    cohort: str
    bundle: str | None
    trips: int
    breaches: int
    calibrations: int
    failures: int
    odometer: float | None
    last_trip_error_v: float | None
    last_trip_received_at: float | None
    last_seen_at: float | None


_TABLE: Final[Table] = Vehicle.__table__  # type: ignore[attr-defined]
_NAMES: Final = tuple(Totals.__dataclass_fields__)
_WRITTEN: Final = [(f"{name}_", name) for name in _NAMES if name != "cohort"]
_LOCKED: Final = (
    select(*(_TABLE.c[name] for name in _NAMES))
    .where(among(_TABLE.c.vehicle_id, "ids"))
    .order_by(_TABLE.c.vehicle_id)
    .with_for_update()
)
_WRITE: Final = (
    update(_TABLE)
    .where(_TABLE.c.vehicle_id == bindparam("vehicle_id_"))
    .values({name: bindparam(key) for key, name in _WRITTEN if name != "vehicle_id"})
)


def locked(db: Session, vehicle_ids: Collection[str]) -> dict[str, Totals]:
    """Of these vehicles as they are now, held until the transaction ends (cloud.store.locks)."""
    if not vehicle_ids:
        return {}
    rows = db.connection().execute(_LOCKED, {"ids": list(vehicle_ids)})
    return {row.vehicle_id: Totals(*row) for row in rows}


def write(db: Session, changed: Iterable[Totals]) -> None:
    """Write them back."""
    rows = [{key: getattr(one, name) for key, name in _WRITTEN} for one in changed]
    if rows:
        db.connection().execute(_WRITE, rows)
