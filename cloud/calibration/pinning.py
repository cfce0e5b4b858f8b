"""Carry out a pin: the content that is to be kept, again, as a new signed revision.

Must never lower a number, and never tell anybody: what is committed comes back as rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from sqlmodel import Session

from cloud.audit.inputs import Inputs, this_platform
from cloud.calibration.revising import Author, Place, numbered, signed_row
from cloud.errors import PinError
from cloud.store import events, locks, pins, revisions
from cloud.store.audit_tables import Pin
from cloud.store.database import Store
from cloud.store.tables import RevisionRow
from common.messages import message_id
from common.revision import Cause, decode_revision

log = logging.getLogger(__name__)

AT_ONCE: Final = 64


class Pinning:
    """Pins of a store; one thread only."""

    def __init__(self, store: Store, author: Author, clock: Callable[[], float]) -> None:
        self._store, self._author, self._clock = store, author, clock

    def round(self, lane: int | None = None) -> list[RevisionRow]:
        """Carry out what is ordered; of one lane, if it is given. Raises StoreUnavailableError."""
        with self._store.read() as db:
            orders = pins.pending(db, AT_ONCE, lane)
        made = [self._settle(order) for order in orders]
        return [row for row in made if row is not None]

    def _settle(self, order: Pin) -> RevisionRow | None:
        """What cannot be followed any more is settled with its reason, and is no pin."""
        with self._store.write() as db:
            locks.vehicles(db, [order.vehicle_id])
            kept = db.get(Pin, order.id)
            if kept is None or kept.done_at is not None:
                return None  # another worker was faster
            kept.done_at = self._clock()
            try:
                row = self._row(db, kept)
            except PinError as error:
                log.warning("not_pinned vehicle_id=%s why=%r", kept.vehicle_id, error.problem)
                kept.problem, kept.ended_at = error.problem, kept.done_at
                return None
            kept.revision = row.number
            db.add(row)
        return row

    def _row(self, db: Session, pin: Pin) -> RevisionRow:
        target = pins.target(db, pin)
        vehicle = revisions.vehicles(db, [pin.vehicle_id])[pin.vehicle_id]
        newest = revisions.newest_of(db, [pin.vehicle_id]).get(pin.vehicle_id)
        place = Place(pin.vehicle_id, target.bundle, newest, vehicle.revision or 0)
        vehicle.failures = 0
        again = msgspec.structs.replace(
            numbered(decode_revision(target.content), place),
            base=target.number,
            cause=Cause(
                kind="roll_back",
                message_id=message_id(pin.vehicle_id, str(pin.id), "pin"),
                returns_to=target.number,
                ordered_by=pin.ordered_by[:64],
                why=f"pinned: {pin.why}"[:256],
            ),
            created_at=self._clock(),
            code_version=self._author.code_version,
        )
        inputs = Inputs(platform=this_platform(), order=f"pin-{pin.id}")
        row = signed_row(again, self._author, inputs)
        events.of_vehicle(
            db, "order.done", self._clock(), vehicle, order=f"pin-{pin.id}", revision=row.number
        )
        return row
