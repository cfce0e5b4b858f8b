"""Which vehicles are pinned now: read by everything that a pin holds back.

Must never write.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, col, select

from cloud.store.audit_tables import Pin
from cloud.store.membership import among

_IN_FORCE = select(Pin).where(among(Pin.vehicle_id, "vehicles"), col(Pin.ended_at).is_(None))


def in_force(db: Session, vehicle_ids: Collection[str]) -> dict[str, Pin]:
    """Of each of these vehicles the pin that nobody has ended."""
    rows = db.exec(_IN_FORCE, params={"vehicles": vehicle_ids})
    return {pin.vehicle_id: pin for pin in rows}


def reason(pin: Pin) -> str:
    """Why a breach brings no revision."""
    return f"pinned by {pin.ordered_by}: {pin.why}"[:256]
