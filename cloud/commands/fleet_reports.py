"""What the command line shows and writes of fleet priors and replaced batteries.

Must never touch a revision.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud.calibration.fleet_priors import make as make_row
from cloud.calibration.fleet_priors import read
from cloud.commands.console import wide_console
from cloud.commands.reports import show as show_rows
from cloud.location import Location
from cloud.store import battery_orders, fleet_priors
from cloud.store.database import Reader, Store
from cloud.store.tables import BatteryOrder, FleetPriorRow, Vehicle
from common.bundle import load_bundle
from common.fleet_prior import FleetPrior, standard_deviations


def make(database: Location, bundle_path: Path, now: float) -> FleetPriorRow:
    """Add the next version. Raises StoreError, BundleError, TooFewVehiclesError."""
    bundle = load_bundle(bundle_path)
    store = Store(database)
    try:
        with store.write() as db:
            row = make_row(db, bundle.sha256, bundle.manifest, now)
            db.add(row)
    finally:
        store.close()
    return row


def show(database: Location, bundle_path: Path, *, as_json: bool) -> bool:
    """Print the newest version; False: there is none. Raises StoreError, FleetPriorError."""
    bundle = load_bundle(bundle_path).sha256
    store = Reader(database)
    with store.read() as db:
        row = fleet_priors.by_version(db, bundle, fleet_priors.newest_version(db, bundle))
    store.close()
    if row is None:
        return False
    prior = read(row)
    if as_json:
        wide_console().out(row.content.decode(), highlight=False, end="")
    else:
        columns = ["odometer", "parameter", "theta", "theta_std", "rate", "rate_std", "growth"]
        show_rows(_flat(prior), columns, as_json=False)
    return True


def list_versions(database: Location, *, as_json: bool) -> None:
    """Print every version. Raises StoreError."""
    store = Reader(database)
    with store.read() as db:
        rows = fleet_priors.versions(db)
    store.close()
    columns = ["bundle", "version", "made_at", "fleet_vehicles", "fleet_revisions", "hash"]
    show_rows([row.model_dump(include=set(columns)) for row in rows], columns, as_json=as_json)


def order_battery(
    database: Location, vehicle_id: str, odometer: float | None, by: str, why: str, now: float
) -> BatteryOrder | None:
    """Keep the order; None: no such vehicle. Raises StoreError, BatteryOrderError."""
    store = Store(database)
    try:
        with store.write() as db:
            vehicle = db.get(Vehicle, vehicle_id)
            if vehicle is None:
                return None
            at = (vehicle.odometer or 0.0) if odometer is None else odometer
            wanted = BatteryOrder(
                vehicle_id=vehicle_id, odometer=at, ordered_by=by, why=why, ordered_at=now
            )
            return battery_orders.place(db, wanted)
    finally:
        store.close()


def _flat(prior: FleetPrior) -> Iterator[dict[str, Any]]:
    stds = standard_deviations(prior)
    count = len(prior.parameters)
    for k, odometer in enumerate(prior.odometers):
        for p, name in enumerate(prior.parameters):
            yield {
                "odometer": odometer,
                "parameter": name,
                "theta": prior.theta[k][p],
                "theta_std": float(stds[k, p]),
                "rate": prior.rate[k][p],
                "rate_std": float(stds[k, count + p]),
                "growth": prior.growth[k][p],
            }
