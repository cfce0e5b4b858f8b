"""What the command line writes and shows of releases.

Must never sign or publish: the service does.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session, col, select

from cloud.commands.reports import show
from cloud.location import Location
from cloud.push.bundle_files import keep, tried
from cloud.store import releases
from cloud.store.database import Reader, Store
from cloud.store.tables import Release, Vehicle
from common.bundle import Bundle
from common.release import RELEASE_TEXT

COLUMNS: Final = ("vehicle_id", "runs", "release", "bundle", "missing", "state", "reason", "detail")


def announce(
    database: Location, folder: Path, vehicle_ids: Collection[str] | None, reason: str, now: float
) -> list[Release] | str:
    """Keep files and orders; a vehicle's id: that one is not known, and nothing was kept.

    Without ids: every vehicle that runs another bundle. Raises StoreError, BundleError.
    """
    bundle = tried(folder)
    store = Store(database)
    try:
        with store.write() as db:
            known = {vehicle.vehicle_id: vehicle for vehicle in db.exec(select(Vehicle))}
            unknown = next((one for one in vehicle_ids or () if one not in known), None)
            if unknown is not None:
                return unknown
            keep(db, bundle, now)
            others = (one for one in sorted(known) if known[one].bundle != bundle.sha256)
            return [
                releases.order(db, _order(one, bundle, reason, now))
                for one in vehicle_ids or others
            ]
    finally:
        store.close()


def status(database: Location, *, as_json: bool) -> None:
    """Print one line a vehicle. Raises StoreError."""
    store = Reader(database)
    with store.read() as db:
        vehicles = db.exec(select(Vehicle).order_by(col(Vehicle.vehicle_id))).all()
        rows = [_row(db, vehicle) for vehicle in vehicles]
    store.close()
    show(rows if as_json else map(_short, rows), COLUMNS, as_json=as_json)


def _order(vehicle_id: str, bundle: Bundle, reason: str, now: float) -> Release:
    return Release(
        vehicle_id=vehicle_id, bundle=bundle.sha256, reason=reason[:RELEASE_TEXT], ordered_at=now
    )


def _row(db: Session, vehicle: Vehicle) -> dict[str, Any]:
    row = releases.latest(db, vehicle.vehicle_id)
    if row is None:
        return {"vehicle_id": vehicle.vehicle_id, "runs": vehicle.bundle}
    return {
        "vehicle_id": vehicle.vehicle_id,
        "runs": vehicle.bundle,
        "release": row.number,
        "bundle": row.bundle,
        "missing": row.missing,
        "state": row.state or ("announced" if row.published_at else "ordered"),
        "reason": row.state_reason,
        "detail": row.state_detail,
    }


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """For people, the first digits of a hash name a bundle well enough."""
    return {**row, **{name: (row.get(name) or "")[:12] for name in ("runs", "bundle")}}
