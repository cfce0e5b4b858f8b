"""A parameter's past: what revisions say of it, and which of them to read when there are many.

Must never read more rows than it is asked for points.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from cloud.store.pages import held
from cloud.store.tables import RevisionRow


@dataclass(frozen=True)
class Between:
    """Which revisions: each bound that is not None must hold, the upper ones not reached."""

    since: float | None = None
    until: float | None = None
    odometer_from: float | None = None
    odometer_to: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As a query takes them."""
        made, odometer = col(RevisionRow.created_at), col(RevisionRow.odometer)
        return held(
            (self.since, made.__ge__),
            (self.until, made.__lt__),
            (self.odometer_from, odometer.__ge__),
            (self.odometer_to, odometer.__lt__),
        )


class Row(NamedTuple):
    """Of a revision, what a history shows; `content` are its bytes."""

    vehicle_id: str
    number: int
    bundle: str
    odometer: float
    created_at: float
    verdict: str | None
    content: bytes


class _States(msgspec.Struct):
    theta: list[float]
    covariance: list[float]


_DECODER: Final = msgspec.json.Decoder(_States)
_COLUMNS: Final = [getattr(RevisionRow, name) for name in Row._fields]


def stride(db: Session, vehicle_ids: Collection[str], between: Between, points: int) -> Stride:
    """Which numbers to read so as to have at most `points` rows of these vehicles."""
    number = col(RevisionRow.number)
    query = (
        select(func.min(number), func.max(number))
        .where(col(RevisionRow.vehicle_id).in_(vehicle_ids), *between.conditions())
        .group_by(col(RevisionRow.vehicle_id))
    )
    ranges = db.exec(query).all()
    if not ranges:
        return Stride(1, 1, 0)
    first, last = min(low for low, _ in ranges), max(high for _, high in ranges)
    each = max(points // len(ranges), 1)
    return Stride(-(-(last - first + 1) // each), first, last)


class Stride(NamedTuple):
    """Every `every`-th number from `first` to `last`."""

    every: int
    first: int
    last: int


def rows(
    db: Session,
    vehicle_ids: Collection[str],
    between: Between,
    picked: Stride,
    bundles: Sequence[str],
) -> list[Row]:
    """The rows, by vehicle and number, of revisions for these bundles."""
    query: Any = select(*_COLUMNS).where(
        col(RevisionRow.vehicle_id).in_(vehicle_ids),
        col(RevisionRow.bundle).in_(bundles),
        *between.conditions(),
    )
    if picked.every > 1:
        numbers = range(picked.first, picked.last + 1, picked.every)
        query = query.where(col(RevisionRow.number).in_(numbers))
    query = query.order_by(col(RevisionRow.vehicle_id), col(RevisionRow.number))
    return [Row(*row) for row in db.connection().execute(query).all()]


def value_and_std(content: bytes, index: int) -> tuple[float, float]:
    """theta[index] and its standard deviation, out of a revision's bytes.

    `covariance` is the upper triangle, row by row, of [2P, 2P]: row i begins after i rows of
    lengths 2P, 2P - 1, …
    """
    states = _DECODER.decode(content)
    size = 2 * len(states.theta)
    variance = states.covariance[index * size - index * (index - 1) // 2]
    return states.theta[index], max(variance, 0.0) ** 0.5
