"""What operators ordered, whatever its kind, as one list: the tables of the kinds side by side.

Must never write: each kind has a module of its own for that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import ColumnElement, literal
from sqlmodel import Session, and_, col, or_, select

from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.tables import BatteryOrder, RollBackOrder, Vehicle

Kind = Literal["battery_replaced", "pin", "recalibration", "roll_back"]
_TABLES: Final[dict[str, Any]] = {
    "battery_replaced": BatteryOrder,
    "pin": Pin,
    "recalibration": RecalibrationOrder,
    "roll_back": RollBackOrder,
}
_NUMBER: Final = re.compile("[0-9]{1,18}")
AnyOrder = BatteryOrder | Pin | RecalibrationOrder | RollBackOrder
Key: TypeAlias = tuple[float, str, int]
"""Time, kind, number."""


@dataclass(frozen=True)
class Found:
    """An order with its kind and its vehicle's cohort."""

    kind: Kind
    order: AnyOrder
    cohort: str

    @property
    def id(self) -> str:
        """As operators name it."""
        return f"{self.kind}-{self.order.id}"

    @property
    def state(self) -> Literal["waiting", "done", "refused"]:
        """`done` with a revision, `refused` without one."""
        if self.order.revision is not None:
            return "done"
        return "refused" if getattr(self.order, "done_at", None) is not None else "waiting"


def by_id(db: Session, name: str) -> Found | None:
    """The order of this id; None: there is none."""
    kind, _, number = name.rpartition("-")
    if kind not in _TABLES or _NUMBER.fullmatch(number) is None:
        return None
    order = db.get(_TABLES[kind], int(number))
    if order is None:
        return None
    vehicle = db.get(Vehicle, order.vehicle_id)
    return Found(kind, order, vehicle.cohort if vehicle else "default")  # type: ignore[arg-type]


def newest(
    db: Session,
    after: Key | None,
    limit: int,
    *,
    vehicle_id: str | None = None,
    cohorts: Collection[str] | None = None,
) -> list[Found]:
    """The last ordered first; `after` is the key of the page before's last."""
    mine: list[ColumnElement[bool]] = []
    if vehicle_id is not None:
        mine.append(col(Vehicle.vehicle_id) == vehicle_id)
    if cohorts is not None:
        mine.append(col(Vehicle.cohort).in_(cohorts))
    found = [one for kind in get_args(Kind) for one in _of_kind(db, kind, after, limit, mine)]
    return sorted(found, key=key_of, reverse=True)[:limit]


def key_of(found: Found) -> Key:
    """By what orders of all kinds are sorted."""
    return found.order.ordered_at, found.kind, found.order.id or 0


def _of_kind(
    db: Session, kind: Kind, after: Key | None, limit: int, mine: list[ColumnElement[bool]]
) -> Iterator[Found]:
    table = _TABLES[kind]
    query = select(table, Vehicle.cohort).join(Vehicle, Vehicle.vehicle_id == table.vehicle_id)
    if after is not None:
        mine = [*mine, _comes_after(kind, table, after)]
    newest_first = (table.ordered_at.desc(), table.id.desc())
    for order, cohort in db.exec(query.where(*mine).order_by(*newest_first).limit(limit)):
        yield Found(kind, order, cohort)


def _comes_after(kind: Kind, table: Any, key: Key) -> ColumnElement[bool]:
    at, its_kind, number = key
    if kind == its_kind:
        same_time: ColumnElement[bool] = table.id < number
    else:
        same_time = literal(kind < its_kind)
    return or_(table.ordered_at < at, and_(table.ordered_at == at, same_time))
