"""Count the fleet: what came between two times, and how its vehicles stand now.

Must never load rows: each figure is one aggregate, over an index on the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func
from sqlmodel import Session, col, select

from cloud.store.pages import Cohorts
from cloud.store.tables import Breach, RevisionRow, Trip, Vehicle
from cloud.store.vehicle_pages import state_in_sql

ERROR_EDGES_V: Final = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
SOH_EDGES: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

Bins = list[tuple[float | None, float | None, int]]


@dataclass(frozen=True)
class Scope:
    """Whose figures: of the cohorts that the caller may see, or of one of them."""

    cohorts: Cohorts = None
    cohort: str | None = None

    def of_vehicle(self) -> list[ColumnElement[bool]]:
        """On the table of vehicles."""
        found: list[ColumnElement[bool]] = []
        if self.cohorts is not None:
            found.append(col(Vehicle.cohort).in_(self.cohorts))
        if self.cohort is not None:
            found.append(col(Vehicle.cohort) == self.cohort)
        return found

    def of(self, table: Any) -> list[ColumnElement[bool]]:
        """On a table that has a `vehicle_id`."""
        own = self.of_vehicle()
        return [col(table.vehicle_id).in_(select(Vehicle.vehicle_id).where(*own))] if own else []


@dataclass(frozen=True)
class Period:
    """What came from `since` on and before `until`."""

    since: float
    until: float

    def of(self, moment: Any) -> list[ColumnElement[bool]]:
        """On a column of times."""
        return [col(moment) >= self.since, col(moment) < self.until]


def vehicles(db: Session, scope: Scope, bundles: Collection[str], now: float) -> dict[str, int]:
    """How many are in each state; `unknown` where their bundle is."""
    state = case((col(Vehicle.bundle).in_(bundles), state_in_sql(now)), else_="unknown")
    query = select(state, func.count()).where(*scope.of_vehicle()).group_by(state)
    return dict(db.exec(query).all())


def online(db: Session, scope: Scope) -> int:
    """How many say that they are."""
    query = select(func.count()).select_from(Vehicle)
    return db.exec(query.where(*scope.of_vehicle(), col(Vehicle.online).is_(True))).one()


def health(db: Session, scope: Scope) -> tuple[Bins, int]:
    """Vehicles by state of health, and how many have none."""
    bins = _histogram(db, Vehicle.soh, SOH_EDGES, scope.of_vehicle())
    query = select(func.count()).select_from(Vehicle)
    unknown = db.exec(query.where(*scope.of_vehicle(), col(Vehicle.soh).is_(None))).one()
    return bins, unknown


def trip_errors(db: Session, scope: Scope, period: Period) -> Bins:
    """Trips that arrived, by their mean absolute error."""
    wanted = [*period.of(Trip.received_at), *scope.of(Trip)]
    return _histogram(db, Trip.error_v, ERROR_EDGES_V, wanted)


def breaches(db: Session, scope: Scope, period: Period) -> int:
    """Breaches that arrived."""
    query = select(func.count()).select_from(Breach)
    return db.exec(query.where(*period.of(Breach.received_at), *scope.of(Breach))).one()


def revisions(
    db: Session, scope: Scope, period: Period
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Revisions that were made: by kind, and by verdict (`none` where there is none yet)."""
    verdict = func.coalesce(RevisionRow.verdict, "none")
    wanted = [*period.of(RevisionRow.created_at), *scope.of(RevisionRow)]
    query = select(RevisionRow.kind, verdict, func.count()).where(*wanted)
    by_kind: Counter[str] = Counter()
    by_verdict: Counter[str] = Counter()
    for kind, said, count in db.exec(query.group_by(RevisionRow.kind, verdict)):
        by_kind[kind] += count
        by_verdict[said] += count
    return by_kind, by_verdict


def _histogram(
    db: Session, column: Any, edges: Sequence[float], wanted: Sequence[ColumnElement[bool]]
) -> Bins:
    """Counts in [edge, next edge); the first and the last bin are open."""
    value = col(column)
    ends = [(None, edges[0]), *pairwise(edges), (edges[-1], None)]
    counts = []
    for low, high in ends:
        inside = [value >= low] if low is not None else []
        inside += [value < high] if high is not None else []
        counts.append(func.count(case((_all(inside), 1))))
    row = db.connection().execute(select(*counts).where(*wanted)).one()
    return [(low, high, count) for (low, high), count in zip(ends, row, strict=True) if count]


def _all(conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    first, *rest = conditions
    for one in rest:
        first &= one
    return first
