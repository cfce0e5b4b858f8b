"""What a trip's summary changes of its vehicle, without the rest of the row.

Most messages are summaries, and most of a vehicle's row is nothing to them: read and written as
plain columns they cost half. Must never be used beside the whole row in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import BindParameter, Table, bindparam, select, update
from sqlmodel import Session

from cloud.store.tables import Vehicle


@dataclass(slots=True)
class Totals:
    """As the columns of Vehicle."""

    vehicle_id: str
    bundle: str | None
    trips: int
    odometer: float | None
    last_trip_error_v: float | None
    last_trip_received_at: float | None
    last_seen_at: float | None


_TABLE: Final[Table] = Vehicle.__table__  # type: ignore[attr-defined]
_NAMES: Final = tuple(Totals.__dataclass_fields__)
_IDS: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
_LOCKED: Final = (
    select(*(_TABLE.c[name] for name in _NAMES))
    .where(_TABLE.c.vehicle_id.in_(_IDS))
    .order_by(_TABLE.c.vehicle_id)
    .with_for_update()
)
_WRITE: Final = (
    update(_TABLE)
    .where(_TABLE.c.vehicle_id == bindparam("vehicle_id_"))
    .values({name: bindparam(f"{name}_") for name in _NAMES if name != "vehicle_id"})
)


def locked(db: Session, vehicle_ids: Collection[str]) -> dict[str, Totals]:
    """Of these vehicles as they are now, held until the transaction ends (cloud.store.locks)."""
    if not vehicle_ids:
        return {}
    rows = db.connection().execute(_LOCKED, {"ids": list(vehicle_ids)})
    return {row.vehicle_id: Totals(*row) for row in rows}


def write(db: Session, changed: Iterable[Totals]) -> None:
    """Write them back."""
    rows = [{f"{name}_": value for name, value in asdict(one).items()} for one in changed]
    if rows:
        db.connection().execute(_WRITE, rows)
