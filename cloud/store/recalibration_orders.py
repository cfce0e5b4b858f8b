"""Somebody's wish to have a vehicle's breaches replayed from a revision on.

Must never take an order that the chain could not follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session, col, select

from cloud.errors import RecalibrationError
from cloud.store import events, locks, pinned, revisions, traces
from cloud.store.audit_tables import RecalibrationOrder
from cloud.store.revisions import of_lane
from cloud.store.tables import Breach, RevisionRow, Vehicle

MOST_BREACHES: Final = 2000
"""A replay is one transaction."""


@dataclass(frozen=True)
class Source:
    """What is replayed, from `base` on (None: the prior); the battery came at `battery_from`."""

    vehicle: Vehicle
    base: RevisionRow | None
    newest: RevisionRow | None
    battery_from: float
    breaches: Sequence[Breach]


def place(db: Session, wanted: RecalibrationOrder) -> RecalibrationOrder:
    """Keep an order; the same one again, while it waits, is the same. Raises RecalibrationError."""
    locks.vehicles(db, [wanted.vehicle_id])
    found = source(db, wanted)
    known = db.exec(
        select(RecalibrationOrder).where(
            RecalibrationOrder.vehicle_id == wanted.vehicle_id,
            RecalibrationOrder.from_revision == wanted.from_revision,
            col(RecalibrationOrder.done_at).is_(None),
        )
    ).first()
    if known is not None:
        return known
    db.add(wanted)
    db.flush()
    told = {"order": f"recalibration-{wanted.id}", "from_revision": wanted.from_revision}
    events.of_vehicle(
        db, "order.placed", wanted.ordered_at, found.vehicle, actor=wanted.ordered_by,
        why=wanted.why, **told,
    )  # fmt: skip
    return wanted


def pending(db: Session, limit: int, lane: int | None = None) -> Sequence[RecalibrationOrder]:
    """Orders that have not been carried out, the oldest first; of one lane, if it is given."""
    query = select(RecalibrationOrder).where(col(RecalibrationOrder.done_at).is_(None))
    if lane is not None:
        query = query.where(col(RecalibrationOrder.vehicle_id).in_(of_lane(lane)))
    return db.exec(query.order_by(col(RecalibrationOrder.id)).limit(limit)).all()


def waits(db: Session, vehicle_id: str) -> bool:
    """Whether a breach of the vehicle is still to be calibrated: that comes first."""
    query = select(Breach.id).where(Breach.vehicle_id == vehicle_id, Breach.state == "pending")
    return db.exec(query.limit(1)).first() is not None


def source(db: Session, order: RecalibrationOrder) -> Source:
    """What is to be replayed. Raises RecalibrationError."""
    vehicle = db.get(Vehicle, order.vehicle_id)
    if vehicle is None or vehicle.bundle is None:
        raise _refused(order, "the vehicle has not said yet which bundle it runs")
    if pinned.in_force(db, [order.vehicle_id]):
        raise _refused(order, "it is pinned; end that first")
    replaced = revisions.replacements(db, [order.vehicle_id]).get(order.vehicle_id)
    began = replaced.number if replaced else 0
    if order.from_revision and order.from_revision < began:
        raise _refused(order, "it was learned of a battery that has been replaced")
    number = order.from_revision or began
    base = revisions.by_number(db, order.vehicle_id, number) if number else None
    if number and base is None:
        raise _refused(order, "there is no such revision")
    if base is not None and base.bundle != vehicle.bundle:
        raise _refused(order, "the vehicle runs another bundle now")
    if base is not None and base.verdict == "refused":
        raise _refused(order, f"it does not stand ({base.verdict_reason})")
    breaches = _breaches(db, vehicle, base)
    if not breaches:
        raise _refused(order, "no breach is recorded after it")
    if len(breaches) > MOST_BREACHES:
        raise _refused(order, f"more than {MOST_BREACHES} breaches are recorded after it")
    _require_kept(db, order, breaches)
    newest = revisions.newest_of(db, [order.vehicle_id]).get(order.vehicle_id)
    return Source(vehicle, base, newest, replaced.odometer if replaced else 0.0, breaches)


def _breaches(db: Session, vehicle: Vehicle, base: RevisionRow | None) -> Sequence[Breach]:
    """Also those that came too late; not those over which a worker ended."""
    query = select(Breach).where(
        Breach.vehicle_id == vehicle.vehicle_id,
        Breach.bundle == vehicle.bundle,
        Breach.state != "pending",
        Breach.tries == 0,
    )
    if base is not None:
        after = col(Breach.odometer) > base.odometer
        if base.kind in {"fleet_prior", "replacement"}:  # its first trip stands at its beginning
            after = col(Breach.odometer) >= base.odometer
        query = query.where(after)
    ordered = query.order_by(col(Breach.odometer), col(Breach.id)).limit(MOST_BREACHES + 1)
    return db.exec(ordered).all()


def _require_kept(db: Session, order: RecalibrationOrder, breaches: Sequence[Breach]) -> None:
    removed = traces.removed_among(db, breaches)
    for breach in breaches:
        if breach.archived_in in removed:
            gone = traces.gone(breach, removed[breach.archived_in or ""])
            raise _refused(order, gone.problem)


def _refused(order: RecalibrationOrder, problem: str) -> RecalibrationError:
    return RecalibrationError(order.vehicle_id, order.from_revision, problem)
