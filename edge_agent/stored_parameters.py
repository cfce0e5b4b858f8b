"""The revisions applied last, and the parameters' copy beside the database.

Must never judge a revision: which of them may be run is for who takes them in.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from common.messages import SignedRevision
from edge_agent import kept
from edge_agent.parameter_copy import ParameterCopy
from edge_agent.salvage import Salvaged

log = logging.getLogger("edge_agent.state")


def applied(db: sqlite3.Connection, copy: ParameterCopy | None) -> list[SignedRevision]:
    """What was applied, newest first, each once: the slot, those before it, and of the copy."""
    rows = db.execute("SELECT signed FROM applied_revision ORDER BY seq DESC").fetchall()
    current = db.execute("SELECT signed FROM parameters WHERE slot = 'current'").fetchall()
    stored = [row[0] for row in (*current, *rows)]
    is_newer = copy is not None and copy.writes > number_of_writes(db)
    return _decoded([*_in(copy), *stored] if is_newer else [*stored, *_in(copy)])


def of_copy(copy: ParameterCopy | None) -> list[SignedRevision]:
    """What was applied, newest first, as the copy alone tells it."""
    return _decoded(_in(copy))


def _in(copy: ParameterCopy | None) -> list[object]:
    return [] if copy is None else [copy.slots.get("current"), *reversed(copy.applied)]


def _decoded(contents: list[object]) -> list[SignedRevision]:
    found = [kept.signed_revision(content) for content in dict.fromkeys(contents)]
    return [signed for signed in found if signed is not None]


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
        slots=dict(db.execute("SELECT slot, signed FROM parameters ORDER BY slot")),
        applied=[row[0] for row in db.execute("SELECT signed FROM applied_revision ORDER BY seq")],
    )


def take_copy(
    db: sqlite3.Connection, copy: ParameterCopy | None, *, is_emptied: bool = False
) -> None:
    """Where the database has lost what the copy still has, take that. In a transaction."""
    writes = number_of_writes(db)
    if copy is None or (copy.writes <= writes and not is_emptied):
        return
    kept.forget_parameters(db)
    db.executemany("INSERT INTO parameters VALUES (?, ?)", list(copy.slots.items()))
    db.executemany(
        "INSERT INTO applied_revision (signed) VALUES (?)", [(signed,) for signed in copy.applied]
    )
    db.execute("INSERT OR REPLACE INTO parameter_writes VALUES (1, ?)", (max(copy.writes, writes),))
    kept.count(db, "parameters_from_copy", 1)
    log.warning("parameters_from_copy slots=%s", sorted(copy.slots))


def count_damage(db: sqlite3.Connection, found: Salvaged) -> None:
    """For `status`: how often a file was damaged, and at how many places something was lost."""
    kept.count(db, "state_damaged", 1)
    if found.lost:
        kept.count(db, "state_losses", found.lost.total())
