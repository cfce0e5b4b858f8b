"""The versions of the fleet's priors, and the revisions that they are learned from.

Must never change a version: a better one is a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from sqlalchemy import bindparam, func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from cloud.store.membership import among
from cloud.store.tables import FleetPriorRow, RevisionRow, Trip, Vehicle

MIN_REVISIONS: Final = 3
"""Fewer of a vehicle do not show how it ages."""
MOST_VEHICLES: Final = 200
"""More would not make the prior better, but the round longer."""
# Built once: putting a statement together costs more than running it.
_NEWEST_VERSION = select(func.max(FleetPriorRow.version)).where(
    col(FleetPriorRow.bundle) == bindparam("bundle")
)
_FLEET = select(func.count(), func.coalesce(func.sum(Vehicle.calibrations), 0)).where(
    col(Vehicle.bundle) == bindparam("bundle"), Vehicle.calibrations >= MIN_REVISIONS
)
_FIRST = aliased(Trip)
_FIRST_TRIPS = select(Trip).where(
    col(Trip.id).in_(
        select(
            select(_FIRST.id)
            .where(col(_FIRST.vehicle_id) == Vehicle.vehicle_id)
            .order_by(col(_FIRST.odometer_end), col(_FIRST.id))
            .limit(1)
            .correlate(Vehicle)
            .scalar_subquery()
        ).where(among(Vehicle.vehicle_id, "vehicles"))
    )
)


@dataclass(frozen=True)
class Fleet:
    """How many vehicles have MIN_REVISIONS of a bundle, and how many revisions those have."""

    vehicles: int
    revisions: int


def fleet(db: Session, bundle: str) -> Fleet:
    """The fleet that a prior of this bundle would be learned from."""
    found = db.exec(_FLEET, params={"bundle": bundle}).one()
    return Fleet(found[0], int(found[1]))  # PostgreSQL's sums are decimals


def newest_version(db: Session, bundle: str) -> int:
    """The version of the newest prior of a bundle; 0: there is none."""
    return db.exec(_NEWEST_VERSION, params={"bundle": bundle}).one() or 0


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


def first_trips(db: Session, vehicle_ids: Collection[str]) -> dict[str, Trip]:
    """Of these vehicles, as far as they reported any, the trip that ended at the lowest odometer.

    Trips do not overlap: it is also the one that began there.
    """
    rows = db.exec(_FIRST_TRIPS, params={"vehicles": list(vehicle_ids)})
    return {row.vehicle_id: row for row in rows}
