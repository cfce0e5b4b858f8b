"""Revisions without a breach: for a vehicle that is new to the fleet, and for a replaced battery.

Must never tell anybody: what is committed comes back as rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlmodel import Session

from cloud.audit.inputs import Inputs, this_platform
from cloud.bundles import Catalogue
from cloud.calibration import figures
from cloud.calibration.fleet_priors import FleetPriors
from cloud.calibration.revising import Author, Place, revision_at, signed_row, started
from cloud.store import battery_orders, events, fleet_priors, locks, pinned, pins, revisions
from cloud.store.database import Store
from cloud.store.tables import BatteryOrder, RevisionRow, Vehicle
from common.errors import TransientError
from common.fleet_prior import reaches
from common.messages import message_id
from common.revision import Cause

log = logging.getLogger(__name__)

AT_ONCE: Final = 64
SETTLED_S: Final = 3.0


class BatteryStarts:
    """Starts batteries in a store; one thread only."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        author: Author,
        priors: FleetPriors,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._catalogue, self._author = store, catalogue, author
        self._priors, self._clock = priors, clock
        self._passed_over: set[str] = set()  # vehicles that nothing can be said of, or that failed

    def round(self, lane: int | None = None) -> list[RevisionRow]:
        """Settle what is ordered, then start newcomers; of one lane, if it is given.

        Where several processes take trips in, a newcomer waits for a moment: its first trip may
        still be on its way. Raises StoreUnavailableError.
        """
        seen_before = self._clock() - (0.0 if lane is None else SETTLED_S)
        with self._store.read() as db:
            orders = battery_orders.pending(db, AT_ONCE, lane)
            newcomers = battery_orders.newcomers(
                db, AT_ONCE + len(self._passed_over), seen_before, lane
            )
        made = [self._guarded(o.vehicle_id, partial(self._replace, o)) for o in orders]
        made += [
            self._guarded(vehicle.vehicle_id, partial(self._begin, vehicle.vehicle_id))
            for vehicle in newcomers
            if vehicle.vehicle_id not in self._passed_over
        ]
        return [row for row in made if row is not None]

    def _guarded(
        self, vehicle_id: str, make: Callable[[Session], RevisionRow | None]
    ) -> RevisionRow | None:
        """One transaction a vehicle: what fails for one must not keep others waiting."""
        try:
            with self._store.write() as db:
                row = make(db)
        except TransientError:
            raise
        except Exception:
            log.exception("battery_not_started vehicle_id=%s", vehicle_id)
            row = None
        if row is None:
            self._passed_over.add(vehicle_id)
        return row

    def _replace(self, order: BatteryOrder, db: Session) -> RevisionRow | None:
        """Age 0 at the order's odometer; where it is told, the vehicle's history goes on."""
        vehicle = locks.vehicles(db, [order.vehicle_id]).get(order.vehicle_id)
        kept = db.get(BatteryOrder, order.id)
        if kept is None or kept.revision is not None:
            return None  # another worker was faster
        if vehicle is None or self._catalogue.find(vehicle.bundle) is None:
            return None  # it waits for its bundle
        standing = revisions.newest_standing(db, order.vehicle_id)
        odometer = max(order.odometer, standing.odometer if standing else 0.0)
        message = message_id(order.vehicle_id, repr(order.odometer), "battery-replaced")
        cause = Cause(kind="replacement", message_id=message)
        named = f"battery_replaced-{order.id}"
        row = self._add(db, vehicle, cause, odometer, battery_from=odometer, order=named)
        kept.revision = row.number
        events.of_vehicle(
            db, "order.done", self._clock(), vehicle, order=named, revision=row.number
        )  # fmt: skip
        if pinned.in_force(db, [order.vehicle_id]):
            pins.end(db, order.vehicle_id, "service", "the battery was replaced", self._clock())
        vehicle.calibrations = vehicle.failures = 0
        vehicle.estimate_state = "learning"
        return row

    def _begin(self, vehicle_id: str, db: Session) -> RevisionRow | None:
        """From where its first trip began, so that no breach of it comes too late."""
        vehicle = locks.vehicles(db, [vehicle_id]).get(vehicle_id)
        first = fleet_priors.first_trips(db, [vehicle_id]).get(vehicle_id)
        if vehicle is None or vehicle.bundle is None or first is None:
            return None
        if vehicle.started:
            return None  # another worker was faster
        if vehicle.revision or first.revision:
            return None  # it runs a history that was lost here: its next breach goes on from that
        prior = self._priors.newest(db, vehicle.bundle)
        if prior is None or not reaches(prior, first.odometer_start):
            return None
        cause = Cause(kind="fleet_prior", message_id=first.message_id)
        return self._add(db, vehicle, cause, first.odometer_start, battery_from=0.0)

    def _add(
        self,
        db: Session,
        vehicle: Vehicle,
        cause: Cause,
        odometer: float,
        battery_from: float,
        order: str = "",
    ) -> RevisionRow:
        bundle = vehicle.bundle or ""
        manifest = self._catalogue.manifest(bundle)
        prior = self._priors.newest(db, bundle)
        estimate, version = started(prior, manifest, odometer, battery_from)
        newest = revisions.newest_of(db, [vehicle.vehicle_id]).get(vehicle.vehicle_id)
        revision = revision_at(
            Place(vehicle.vehicle_id, bundle, newest, vehicle.revision or 0),
            estimate,
            base=0,
            prior_version=version,
            cause=cause,
            author=self._author,
            now=self._clock(),
        )
        inputs = Inputs(
            prior=prior.version if prior else 0,
            battery_from=battery_from,
            platform=this_platform(),
            order=order,
        )
        row = signed_row(revision, self._author, inputs)
        db.add(row)
        events.of_vehicle(
            db, "revision.made", row.created_at, vehicle, revision=row.number, cause=row.kind
        )  # fmt: skip
        vehicle.started = True
        figures.note([(vehicle, revision)], self._catalogue.model(bundle), manifest)
        return row
