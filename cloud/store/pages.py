"""Read for the operator: stable pages, each with a unique last key.

Must never write. `after` is the key of the last item of the page before, None for the first page;
each query gives at most `limit` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, tuple_
from sqlmodel import Session, col, select

from cloud.store.tables import ProvisionalRow, Quarantine, RevisionRow, Trip, Vehicle

Cohorts = frozenset[str] | None


NO_END: Final = 2**63 - 1
"""Before this stands every row: a page that begins at the first is a range, too."""


@dataclass(frozen=True)
class TripsWanted:
    """Which trips: each field that is not None must hold, the upper bounds not reached."""

    since: float | None = None
    until: float | None = None
    odometer_from: float | None = None
    odometer_to: float | None = None
    breach: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As a query takes them."""
        started, odometer = col(Trip.started_at), col(Trip.odometer_end)
        return held(
            (self.since, started.__ge__),
            (self.until, started.__lt__),
            (self.odometer_from, odometer.__ge__),
            (self.odometer_to, odometer.__lt__),
            (self.breach, col(Trip.breach).__eq__),
        )


def held(*pairs: tuple[Any, Callable[[Any], Any]]) -> list[ColumnElement[bool]]:
    """The conditions of what is given."""
    return [condition(value) for value, condition in pairs if value is not None]


def trips(
    db: Session,
    after: tuple[float, int] | None,
    limit: int,
    *,
    vehicle_id: str,
    wanted: TripsWanted = TripsWanted(),  # frozen
) -> Sequence[Trip]:
    """Trips of a vehicle, the highest odometer first."""
    order = (col(Trip.odometer_end), col(Trip.id))
    query = select(Trip).where(Trip.vehicle_id == vehicle_id, *wanted.conditions())
    query = query.order_by(order[0].desc(), order[1].desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    return db.exec(query).all()


def revisions(  # each is a filter
    db: Session,
    after: int | None,
    limit: int,
    *,
    vehicle_id: str,
    kind: str | None = None,
    verdict: str | None = None,
) -> Sequence[RevisionRow]:
    """Revisions of a vehicle, the newest first; `verdict` "none": those without one."""
    query = select(RevisionRow).where(RevisionRow.vehicle_id == vehicle_id)
    query = query.order_by(col(RevisionRow.number).desc()).limit(limit)
    if kind is not None:
        query = query.where(RevisionRow.kind == kind)
    if verdict is not None:
        said = None if verdict == "none" else verdict
        query = query.where(col(RevisionRow.verdict).is_not_distinct_from(said))
    if after is not None:
        query = query.where(RevisionRow.number < after)
    return db.exec(query).all()


def provisionals(
    db: Session, after: tuple[float, int] | None, limit: int, *, vehicle_id: str
) -> Sequence[ProvisionalRow]:
    """What a vehicle made for itself, the highest odometer first."""
    order = (col(ProvisionalRow.odometer), col(ProvisionalRow.id))
    query = select(ProvisionalRow).where(ProvisionalRow.vehicle_id == vehicle_id)
    query = query.order_by(order[0].desc(), order[1].desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    return db.exec(query).all()


@dataclass(frozen=True)
class QuarantineWanted:
    """Which refused messages: each field that is not None must hold."""

    vehicle_id: str | None = None
    error: str | None = None
    since: float | None = None
    until: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As a query takes them."""
        received = col(Quarantine.received_at)
        return held(
            (self.vehicle_id, col(Quarantine.vehicle_id).__eq__),
            (self.error, col(Quarantine.error).__eq__),
            (self.since, received.__ge__),
            (self.until, received.__lt__),
        )


def quarantined(
    db: Session,
    after: int | None,
    limit: int,
    *,
    cohorts: Cohorts,
    wanted: QuarantineWanted = QuarantineWanted(),  # frozen
) -> Sequence[Quarantine]:
    """Refused messages of vehicles of these cohorts (None: all of them), the latest first."""
    query = select(Quarantine).where(*wanted.conditions())
    query = query.where(col(Quarantine.id) < (NO_END if after is None else after))
    query = query.order_by(col(Quarantine.id).desc()).limit(limit)
    if cohorts is not None:
        theirs = select(Vehicle.vehicle_id).where(col(Vehicle.cohort).in_(cohorts))
        query = query.where(col(Quarantine.vehicle_id).in_(theirs))
    return db.exec(query).all()


def may_see_quarantined(db: Session, row: Quarantine, cohorts: Cohorts) -> bool:
    """Whether the list shows this message to who sees these cohorts (None: all of them)."""
    if cohorts is None:
        return True
    vehicle = db.get(Vehicle, row.vehicle_id) if row.vehicle_id else None
    return vehicle is not None and vehicle.cohort in cohorts
