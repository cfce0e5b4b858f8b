"""Which vehicles are pinned now: read by everything that a pin holds back.

Must never write.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, col, select

from cloud.store.audit_tables import Pin


def in_force(db: Session, vehicle_ids: Collection[str]) -> dict[str, Pin]:
    """Of each of these vehicles the pin that nobody has ended."""
    query = select(Pin).where(col(Pin.vehicle_id).in_(vehicle_ids), col(Pin.ended_at).is_(None))
    return {pin.vehicle_id: pin for pin in db.exec(query)}


def reason(pin: Pin) -> str:
    """Why a breach brings no revision."""
    return f"pinned by {pin.ordered_by}: {pin.why}"[:256]
