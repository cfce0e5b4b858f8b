"""The list of vehicles: filtered, sorted, in stable pages; and what their rows say of their state.

Must never write. Each order is an index that ends in the vehicle's id: a page without a filter
touches as many rows as it gives, one with a filter at worst those that the filter leaves out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, case, false, func, or_, tuple_
from sqlmodel import Session, col, select

from cloud.store.pages import Cohorts
from cloud.store.tables import RevisionRow, Vehicle
from common import estimate_state as limits

Key = tuple[str, float | None, str]  # what it was sorted by, the value, the id

COLUMNS: Final[Mapping[str, Any]] = {
    "soh": Vehicle.soh,
    "drift": Vehicle.drift,
    "error": Vehicle.last_trip_error_v,
    "odometer": Vehicle.odometer,
    "breaches": Vehicle.breaches,
    "last_seen": Vehicle.last_seen_at,
}
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


@dataclass(frozen=True)
class Wanted:
    """Which vehicles: each field that is not None must hold. `compared`: `soh__lt` and its like."""

    starts_with: str | None = None
    state: str | None = None
    bundle: str | None = None
    cohort: str | None = None
    online: bool | None = None
    compared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """A vehicle and the number of its newest revision (0: none)."""

    vehicle: Vehicle
    newest_revision: int


_NEWEST: Final = (
    select(RevisionRow.number)
    .where(RevisionRow.vehicle_id == Vehicle.vehicle_id)
    .order_by(col(RevisionRow.number).desc())
    .limit(1)
    .correlate(Vehicle)
    .scalar_subquery()
)
_ID: Final = col(Vehicle.vehicle_id)


def ids(db: Session, limit: int, *, sort: str, conditions: Sequence[Any]) -> list[str]:
    """Of the first page, the ids."""
    rows = page(db, None, limit, sort=sort, conditions=conditions)
    return [row.vehicle.vehicle_id for row in rows]


def page(
    db: Session, after: Key | None, limit: int, *, sort: str, conditions: Sequence[Any]
) -> list[Listed]:
    """Vehicles that meet the conditions, by `sort` (a minus in front: the highest first).

    Where the value is unknown a vehicle comes last, in either direction.
    """
    name, is_falling = sort.removeprefix("-"), sort.startswith("-")
    column = COLUMNS.get(name)
    query = select(Vehicle, func.coalesce(_NEWEST, 0)).where(*conditions)
    found: list[Any] = []
    if column is not None and (after is None or after[1] is not None):
        keys = (col(column), _ID)
        known = query.where(col(column).is_not(None)).order_by(*_directed(keys, is_falling))
        if after is not None:
            known = known.where(_beyond(tuple_(*keys), after[1:], is_falling))
        found += db.exec(known.limit(limit)).all()
    if len(found) < limit:
        rest = query.order_by(*_directed([_ID], is_falling))
        if column is not None:
            rest = rest.where(col(column).is_(None))
        if after is not None and after[1] is None:
            rest = rest.where(_beyond(tuple_(_ID), after[2:], is_falling))
        found += db.exec(rest.limit(limit - len(found))).all()
    return [Listed(vehicle, number) for vehicle, number in found]


def key(listed: Listed, sort: str) -> Key:
    """Where a page ends."""
    column = COLUMNS.get(sort.removeprefix("-"))
    value = None if column is None else getattr(listed.vehicle, column.key)
    return sort, value, listed.vehicle.vehicle_id


def conditions(
    wanted: Wanted, cohorts: Cohorts, bundles: Collection[str], now: float
) -> list[ColumnElement[bool]]:
    """What a row must meet; `bundles` are those that are known here, without which is no state."""
    equal = {"bundle": wanted.bundle, "cohort": wanted.cohort, "online": wanted.online}
    found = [
        col(getattr(Vehicle, name)) == value for name, value in equal.items() if value is not None
    ]
    if cohorts is not None:
        found.append(col(Vehicle.cohort).in_(cohorts))
    if wanted.starts_with is not None:
        start = wanted.starts_with  # not LIKE: that ignores case on SQLite
        found += [start <= _ID, func.substr(_ID, 1, len(start)) == start]
    if wanted.state is not None:
        found += [col(Vehicle.bundle).in_(bundles), state_in_sql(now) == wanted.state]
    for name, value in wanted.compared.items():
        column, _, comparison = name.rpartition("__")
        found.append(COMPARISONS[comparison](COLUMNS[column], value))
    return found


def state_in_sql(now: float) -> ColumnElement[str]:
    """What `estimate_state.judge` says of `evidence.noted`, as an expression (a test compares)."""
    before = col(Vehicle.estimate_state)

    def limit(state: str, within: float, otherwise: float) -> ColumnElement[float]:
        return case((before == state, within), else_=otherwise)

    relative, left = col(Vehicle.relative_std), col(Vehicle.error_left)
    received = col(Vehicle.last_trip_received_at)
    is_learning = or_(
        col(Vehicle.calibrations) == 0,
        relative.is_(None),
        col(Vehicle.trips) < limits.MIN_TRIPS,
        case(
            (before == "learning", relative > limits.KNOWN_BELOW_STD),
            else_=relative > limits.LEARNING_ABOVE_STD,
        ),
    )
    is_doubtful = or_(
        col(Vehicle.failures) >= limits.DOUBTFUL_FROM_FAILURES,
        func.coalesce(
            left > limit("doubtful", limits.TRUSTED_BELOW_ERROR, limits.DOUBTFUL_ABOVE_ERROR),
            false(),
        ),
    )
    age_s = now - received
    is_stale = age_s > limit("stale", limits.FRESH_WITHIN_S, limits.STALE_AFTER_S)
    return case(
        (is_learning, "learning"), (is_doubtful, "doubtful"), (is_stale, "stale"), else_="known"
    )


def _directed(keys: Sequence[Any], is_falling: bool) -> list[Any]:  # noqa: FBT001
    return [one.desc() if is_falling else one.asc() for one in keys]


def _beyond(keys: Any, after: Sequence[object], is_falling: bool) -> ColumnElement[bool]:  # noqa: FBT001
    found: ColumnElement[bool] = keys < tuple_(*after) if is_falling else keys > tuple_(*after)
    return found
