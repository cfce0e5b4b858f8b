"""The versions of the fleet's priors, and the revisions that they are learned from.

Must never change a version: a better one is a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from sqlalchemy import func
from sqlmodel import Session, col, select

from cloud.store.tables import FleetPriorRow, RevisionRow, Trip, Vehicle

MIN_REVISIONS: Final = 3
"""Fewer of a vehicle do not show how it ages."""
MOST_VEHICLES: Final = 200
"""More would not make the prior better, but the round longer."""


@dataclass(frozen=True)
class Fleet:
    """How many vehicles have MIN_REVISIONS of a bundle, and how many revisions those have."""

    vehicles: int
    revisions: int


def fleet(db: Session, bundle: str) -> Fleet:
    """The fleet that a prior of this bundle would be learned from."""
    found = db.exec(
        select(func.count(), func.coalesce(func.sum(Vehicle.calibrations), 0)).where(
            Vehicle.bundle == bundle, Vehicle.calibrations >= MIN_REVISIONS
        )
    ).one()
    return Fleet(found[0], int(found[1]))  # PostgreSQL's sums are decimals


def newest_version(db: Session, bundle: str) -> int:
    """The version of the newest prior of a bundle; 0: there is none."""
    query = select(func.max(FleetPriorRow.version)).where(FleetPriorRow.bundle == bundle)
    return db.exec(query).one() or 0


def by_version(db: Session, bundle: str, version: int) -> FleetPriorRow | None:
    """One version of a bundle's prior."""
    query = select(FleetPriorRow).where(
        FleetPriorRow.bundle == bundle, FleetPriorRow.version == version
    )
    return db.exec(query).first()


def versions(db: Session) -> Sequence[FleetPriorRow]:
    """Every version of every bundle, the oldest first."""
    return db.exec(select(FleetPriorRow).order_by(col(FleetPriorRow.id))).all()


def standing_revisions(db: Session, bundle: str) -> Iterator[tuple[str, list[RevisionRow]]]:
    """The revisions that stand of vehicles of a bundle, by number; replacements of any bundle.

    Of a large fleet MOST_VEHICLES, evenly over their ids.
    """
    ids = db.exec(
        select(Vehicle.vehicle_id)
        .where(Vehicle.bundle == bundle, Vehicle.calibrations >= MIN_REVISIONS)
        .order_by(col(Vehicle.vehicle_id))
    ).all()
    chosen = ids[:: -(-len(ids) // MOST_VEHICLES)] if ids else ids
    query = (
        select(RevisionRow)
        .where(
            col(RevisionRow.vehicle_id).in_(chosen),
            (RevisionRow.bundle == bundle) | (RevisionRow.kind == "replacement"),
            func.coalesce(RevisionRow.verdict, "") != "refused",
        )
        .order_by(col(RevisionRow.vehicle_id), col(RevisionRow.number))
    )
    for vehicle_id, rows in groupby(db.exec(query), key=lambda row: row.vehicle_id):
        yield vehicle_id, list(rows)


def first_trip(db: Session, vehicle_id: str) -> Trip | None:
    """The trip that began at the lowest odometer of those that the vehicle reported."""
    query = select(Trip).where(Trip.vehicle_id == vehicle_id)
    return db.exec(query.order_by(col(Trip.odometer_start), col(Trip.id)).limit(1)).first()
