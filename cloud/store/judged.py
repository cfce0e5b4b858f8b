"""Revisions as their vehicle's word on them sees and changes them: without their content.

Most of a revision's row is nothing to a verdict: read and written as plain columns, all of a batch
in a few statements, a verdict costs a tenth. Must never be used beside the whole row in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, and_, bindparam, select
from sqlmodel import Session

from cloud.store.bulk import Update
from cloud.store.membership import among
from cloud.store.tables import Breach, RevisionRow, Vehicle
from common.messages import Acknowledgement


@dataclass(slots=True)
class Judged:
    """As the columns of RevisionRow; from `verdict` on a vehicle's word changes them."""

    id: int
    vehicle_id: str
    number: int
    hash: str
    kind: str
    cause_message_id: str
    created_at: float
    published_at: float | None
    verdict: str | None = None
    verdict_reason: str | None = None
    verdict_detail: str | None = None
    verdict_at: float | None = None
    confirmed_at: float | None = None
    trace_error_before_v: float | None = None
    trace_error_after_v: float | None = None
    next_trip_error_before_v: float | None = None
    next_trip_error_after_v: float | None = None
    breach_received_at: float | None = None
    """When the breach came that brought it."""


_TABLE: Final[Table] = RevisionRow.__table__  # type: ignore[attr-defined]
_LATER: Final = _TABLE.alias()
_VEHICLES: Final[Table] = Vehicle.__table__  # type: ignore[attr-defined]
_BREACHES: Final[Table] = Breach.__table__  # type: ignore[attr-defined]
_NAMES: Final = tuple(Judged.__dataclass_fields__)[:-1]
_CHANGED: Final = _NAMES[_NAMES.index("verdict") :]
_COLUMNS: Final = select(*(_TABLE.c[name] for name in _NAMES), _BREACHES.c.received_at).outerjoin(
    _BREACHES,
    and_(
        _BREACHES.c.message_id == _TABLE.c.cause_message_id,
        _BREACHES.c.vehicle_id == _TABLE.c.vehicle_id,
    ),
)
_NEWEST_ID: Final = (
    select(_LATER.c.id)
    .where(_LATER.c.vehicle_id == _VEHICLES.c.vehicle_id)
    .order_by(_LATER.c.number.desc())
    .limit(1)
    .correlate(_VEHICLES)
    .scalar_subquery()
)
_NEWEST: Final = _COLUMNS.where(
    _TABLE.c.id.in_(select(_NEWEST_ID).where(among(_VEHICLES.c.vehicle_id, "ids")))
)
_OLDER: Final = _COLUMNS.where(
    _TABLE.c.vehicle_id == bindparam("vehicle"), _TABLE.c.number == bindparam("number")
)
_WRITE: Final = Update(_TABLE, "id", _CHANGED)


def named_by(db: Session, acks: Collection[Acknowledgement]) -> dict[tuple[str, int], Judged]:
    """The revisions that these acknowledgements name, as far as there are such.

    Their vehicles must be locked. Mostly it is a vehicle's newest: then one query is enough.
    """
    if not acks:
        return {}
    vehicles = {"ids": sorted({ack.vehicle_id for ack in acks})}
    newest = [Judged(*row) for row in db.connection().execute(_NEWEST, vehicles)]
    found = {(one.vehicle_id, one.number): one for one in newest}
    for vehicle_id, number in {(ack.vehicle_id, ack.revision) for ack in acks} - found.keys():
        wanted = {"vehicle": vehicle_id, "number": number}
        for row in db.connection().execute(_OLDER, wanted):
            found[vehicle_id, number] = Judged(*row)
    return found


def write(db: Session, changed: Iterable[Judged]) -> None:
    """Write back what vehicles said of them."""
    rows = [{name: getattr(one, name) for name in ("id", *_CHANGED)} for one in changed]
    _WRITE.execute(db, rows)
