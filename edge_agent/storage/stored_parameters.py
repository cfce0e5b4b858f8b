"""The slots of the parameters, and their copy beside the database.

Must never judge a revision: which of them may be run is for who takes them in.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from common.messages import SignedRevision
from edge_agent.storage import kept
from edge_agent.storage.parameter_copy import ParameterCopy
from edge_agent.storage.salvage import Salvaged

log = logging.getLogger("edge_agent.storage.state")


Slots = Mapping[str, SignedRevision | None]
"""What a slot holds; None for what is there and cannot be read."""


def slots(db: sqlite3.Connection, copy: ParameterCopy | None) -> list[Slots]:
    """Of the file and of the copy, the newer first."""
    rows = db.execute("SELECT slot, signed FROM parameters")
    found = [{slot: kept.signed_revision(signed) for slot, signed in rows}, *of_copy(copy)]
    is_newer = copy is not None and copy.writes > number_of_writes(db)
    return found[::-1] if is_newer else found


def of_copy(copy: ParameterCopy | None) -> list[Slots]:
    """Of the copy alone."""
    if copy is None:
        return []
    return [{slot: kept.signed_revision(signed) for slot, signed in copy.slots.items()}]


# ---- the copy beside the database ---------------------------------------------------------------


def number_of_writes(db: sqlite3.Connection) -> int:
    """How often the slots were written since the file began; a copy with more is newer."""
    row = db.execute("SELECT number FROM parameter_writes").fetchone()
    return row[0] if row and isinstance(row[0], int) else 0


def copy_of(db: sqlite3.Connection, key: Mapping[str, str], writes: int) -> ParameterCopy:
    """What the database holds."""
    return ParameterCopy(
        vehicle_id=key["vehicle_id"],
        bundle=key["bundle"],
        writes=writes,
        slots=_contents(db),
        anchors=dict(db.execute("SELECT name, value FROM anchor ORDER BY name")),
    )


def _contents(db: sqlite3.Connection) -> dict[str, bytes]:
    return dict(db.execute("SELECT slot, signed FROM parameters ORDER BY slot"))


def take_copy(
    db: sqlite3.Connection, copy: ParameterCopy | None, *, is_emptied: bool = False
) -> None:
    """Where the database has lost what the copy still has, take that. In a transaction.

    Of two that are as new but differ, the copy has the checksum.
    """
    writes = number_of_writes(db)
    if copy is None or (copy.writes < writes and not is_emptied):
        return
    here = copy_of(db, {"vehicle_id": copy.vehicle_id, "bundle": copy.bundle}, copy.writes)
    if copy.slots == here.slots and copy.anchors.keys() <= here.anchors.keys():
        # an anchor of which the copy is older, such as a count of trips, is no loss
        _count_on_from(db, copy, writes)
        return
    kept.forget_all_parameters(db)
    db.executemany("INSERT INTO parameters VALUES (?, ?)", list(copy.slots.items()))
    db.executemany(
        "INSERT OR IGNORE INTO anchor (name, value) VALUES (?, ?)", list(copy.anchors.items())
    )
    _count_on_from(db, copy, writes)
    kept.count(db, "parameters_from_copy", 1)
    log.warning("parameters_from_copy slots=%s", sorted(copy.slots))


def _count_on_from(db: sqlite3.Connection, copy: ParameterCopy, writes: int) -> None:
    """The next copy must be newer than every one that there is."""
    most = max(copy.writes, writes)
    db.execute("INSERT OR REPLACE INTO parameter_writes VALUES (1, ?)", (most,))


def count_damage(db: sqlite3.Connection, found: Salvaged) -> None:
    """For `status`: how often a file was damaged, and at how many places something was lost."""
    kept.count(db, "state_damaged", 1)
    if found.lost:
        kept.count(db, "state_losses", found.lost.total())
