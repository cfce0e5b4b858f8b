"""Revisions that a round has made, on their way into the table: all of them in one statement.

The columns that are known by then and no others: as rows of a session each would cost what its
signature costs, and one long statement more than many short ones. Must never change a revision that
is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, select
from sqlmodel import Session, col

from cloud.store.bulk import Insert
from cloud.store.membership import among
from cloud.store.revisions import NEWEST_ID
from cloud.store.tables import RevisionRow, Vehicle


@dataclass(slots=True)
class NewRevision:
    """As the columns of RevisionRow; `id` is 0 until it is in the table."""

    vehicle_id: str
    number: int
    bundle: str
    odometer: float
    cause_message_id: str
    content: bytes
    hash: str
    key_id: str
    signature: str
    created_at: float
    kind: str
    parent_hash: str
    inputs: bytes
    approval: str | None = None
    id: int = 0


_TABLE: Final[Table] = RevisionRow.__table__  # type: ignore[attr-defined]
_NAMES: Final = tuple(NewRevision.__dataclass_fields__)[:-1]
_INSERT: Final = Insert(_TABLE, _NAMES)
_IDS: Final = (
    select(_TABLE.c.vehicle_id, _TABLE.c.id)
    .join(Vehicle, col(Vehicle.vehicle_id) == _TABLE.c.vehicle_id)
    .where(_TABLE.c.id == NEWEST_ID, among(Vehicle.vehicle_id, "vehicles"))
)


def add(db: Session, made: Sequence[NewRevision]) -> None:
    """Write them, at most one of each vehicle, and their ids into them.

    Their vehicles must be locked: each is its vehicle's newest then.
    """
    if not made:
        return
    _INSERT.execute(db, [{name: getattr(one, name) for name in _NAMES} for one in made])
    of = {one.vehicle_id: one for one in made}
    for vehicle_id, row in db.connection().execute(_IDS, {"vehicles": list(of)}):
        of[vehicle_id].id = row


def as_row(made: NewRevision) -> RevisionRow:
    """For a session that adds it by itself."""
    return RevisionRow(**{name: getattr(made, name) for name in _NAMES})
