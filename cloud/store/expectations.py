"""What vehicles should run by now: the newest revision, and the newest release, of each.

Must never say of a vehicle what it runs: its status does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from cloud.store.membership import among
from cloud.store.revisions import MAY_RUN, STANDS
from cloud.store.tables import Release, RevisionRow, Vehicle


class Expected(NamedTuple):
    """Numbers; 0: there is none. The revision is for the bundle that the vehicle says it has."""

    revision: int
    release: int


_REVISION = (
    select(RevisionRow.number)
    .where(
        col(RevisionRow.vehicle_id) == Vehicle.vehicle_id,
        col(RevisionRow.bundle) == Vehicle.bundle,
        STANDS,
        MAY_RUN,
    )
    .order_by(col(RevisionRow.number).desc())
    .limit(1)
    .correlate(Vehicle)
    .scalar_subquery()
)
_RELEASE = (
    select(func.max(Release.number))
    .where(col(Release.vehicle_id) == Vehicle.vehicle_id)
    .correlate(Vehicle)
    .scalar_subquery()
)
_EXPECTED = select(
    Vehicle.vehicle_id, func.coalesce(_REVISION, 0), func.coalesce(_RELEASE, 0)
).where(among(Vehicle.vehicle_id, "vehicles"))


def of(db: Session, vehicle_ids: Collection[str]) -> Iterator[tuple[str, Expected]]:
    """Of each of these vehicles."""
    rows = db.connection().execute(_EXPECTED, {"vehicles": sorted(vehicle_ids)})
    for vehicle_id, revision, release in rows:
        yield vehicle_id, Expected(revision, release)
