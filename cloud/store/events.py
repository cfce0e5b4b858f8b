"""Write down what happened, in the transaction in which it happened.

Must never be called for what has not happened yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlmodel import Session

from cloud.store.event_tables import Event


def add(
    db: Session,
    kind: str,
    at: float,
    *,
    vehicle_id: str | None = None,
    cohort: str | None = None,
    actor: str | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add one event. `detail` must encode as JSON."""
    encoded = msgspec.json.encode(dict(detail or {}))
    db.add(
        Event(at=at, kind=kind, vehicle_id=vehicle_id, cohort=cohort, actor=actor, detail=encoded)
    )
