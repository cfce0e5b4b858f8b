"""Carry out what operators order: the content of an earlier revision again, under a new number.

Must never lower a number, and never tell anybody: what is committed comes back as rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlmodel import Session

from cloud.audit.inputs import Inputs, this_platform
from cloud.bundles import Catalogue
from cloud.calibration import figures
from cloud.calibration.revising import Author, Place, numbered, signed_row
from cloud.errors import RollBackError
from cloud.store import events, locks, revisions, roll_back_orders
from cloud.store.database import Store
from cloud.store.tables import RevisionRow, RollBackOrder, Vehicle
from common.messages import message_id
from common.revision import Cause, Revision, decode_revision

log = logging.getLogger(__name__)

AT_ONCE: Final = 64


class RollBacks:
    """Orders of a store; one thread only."""

    def __init__(
        self, store: Store, catalogue: Catalogue, author: Author, clock: Callable[[], float]
    ) -> None:
        self._store, self._catalogue = store, catalogue
        self._author, self._clock = author, clock

    def round(self, lane: int | None = None) -> list[RevisionRow]:
        """Settle what is ordered; of one lane, if it is given. Raises StoreUnavailableError."""
        with self._store.read() as db:
            orders = roll_back_orders.pending(db, AT_ONCE, lane)
        made = [self._settle(order) for order in orders]
        return [row for row in made if row is not None]

    def _settle(self, order: RollBackOrder) -> RevisionRow | None:
        """What cannot be followed any more is settled with its reason."""
        with self._store.write() as db:
            vehicle = locks.vehicles(db, [order.vehicle_id]).get(order.vehicle_id)
            kept = db.get(RollBackOrder, order.id)
            if kept is None or kept.done_at is not None:
                return None  # another worker was faster
            kept.done_at = self._clock()
            try:
                row = self._row(db, order)
            except RollBackError as error:
                log.warning("not_rolled_back vehicle_id=%s why=%r", order.vehicle_id, error.problem)
                kept.problem = error.problem
                self._tell(db, vehicle, "order.refused", order, why=error.problem)
                return None
            kept.revision = row.number
            db.add(row)
            self._tell(db, vehicle, "order.done", order, revision=row.number)
            self._tell(db, vehicle, "revision.made", order, revision=row.number, cause=row.kind)
        return row

    def _tell(
        self, db: Session, vehicle: Vehicle | None, kind: str, order: RollBackOrder, **what: Any
    ) -> None:
        if vehicle is not None:
            name = f"roll_back-{order.id}"
            events.of_vehicle(db, kind, self._clock(), vehicle, order=name, **what)

    def _row(self, db: Session, order: RollBackOrder) -> RevisionRow:
        target = roll_back_orders.target(db, order)
        vehicle = revisions.vehicles(db, [order.vehicle_id])[order.vehicle_id]
        newest = revisions.newest_of(db, [order.vehicle_id]).get(order.vehicle_id)
        place = Place(order.vehicle_id, target.bundle, newest, vehicle.revision or 0)
        vehicle.failures = 0
        again = self._again(decode_revision(target.content), place, order)
        inputs = Inputs(platform=this_platform(), order=f"roll_back-{order.id}")
        row = signed_row(again, self._author, inputs)
        if self._catalogue.find(row.bundle) is not None:
            model = self._catalogue.model(row.bundle)
            figures.note([(vehicle, again)], model, self._catalogue.manifest(row.bundle))
        return row

    def _again(self, wanted: Revision, place: Place, order: RollBackOrder) -> Revision:
        cause = Cause(
            kind="roll_back",
            message_id=message_id(order.vehicle_id, str(order.id), "roll-back"),
            returns_to=wanted.number,
            ordered_by=order.ordered_by[:64],
            why=order.why[:256],
        )
        return msgspec.structs.replace(
            numbered(wanted, place),
            base=wanted.number,
            cause=cause,
            created_at=self._clock(),
            code_version=self._author.code_version,
        )
