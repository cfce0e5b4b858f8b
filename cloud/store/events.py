"""Write down what happened, in the transaction in which it happened.

Events are written last, and by one transaction at a time (on PostgreSQL a trigger sees to it): so
their ids come in the order in which they can be read, and who has read up to an id has missed none.
Must never be called for what has not happened yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Table
from sqlmodel import Session

from cloud.store.bulk import Insert
from cloud.store.event_tables import Event
from cloud.store.tables import Vehicle
from cloud.store.totals import Totals

_TABLE: Final[Table] = Event.__table__  # type: ignore[attr-defined]
_INSERT: Final = Insert(_TABLE, ["at", "kind", "vehicle_id", "cohort", "actor", "detail"])


@dataclass(frozen=True)
class Happened:
    """One event before it is written."""

    kind: str
    vehicle_id: str | None = None
    cohort: str | None = None
    detail: Mapping[str, object] | None = None


_HELD: Final = "events"


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
    row = {
        "at": at,
        "kind": kind,
        "vehicle_id": vehicle_id,
        "cohort": cohort,
        "actor": actor,
        "detail": msgspec.json.encode(dict(detail or {})),
    }
    db.info.setdefault(_HELD, []).append(row)


def of_vehicle(
    db: Session,
    kind: str,
    at: float,
    vehicle: Vehicle | Totals,
    *,
    actor: str | None = None,
    **detail: object,
) -> None:
    """Add what happened to a vehicle; those who may see only its cohort see it, too."""
    cohort = vehicle.cohort or "default"
    add(
        db, kind, at, vehicle_id=vehicle.vehicle_id, cohort=cohort, actor=actor, detail=detail
    )  # fmt: skip


def add_many(db: Session, at: float, happened: Iterable[Happened]) -> None:
    """Add what the service did, in one statement: where thousands a second come."""
    for one in happened:
        add(
            db, one.kind, at, vehicle_id=one.vehicle_id, cohort=one.cohort, detail=one.detail
        )  # fmt: skip


def forget(db: Session) -> None:
    """What was added has been rolled back."""
    db.info.pop(_HELD, None)


def write(db: Session) -> None:
    """Write what was added, in one statement; only the commit may come after."""
    _INSERT.execute(db, db.info.pop(_HELD, []))
