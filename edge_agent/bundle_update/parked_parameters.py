"""The parameters of the bundle that ran before: a roll-back finds them again.

Inside the caller's transaction. Must never keep those of more than one bundle beside the present.
"""

from __future__ import annotations

import sqlite3

from edge_agent.storage import kept


def exchange(db: sqlite3.Connection, bundle: str) -> None:
    """Park what the bundle of before was calibrated to, and take up what `bundle` once was."""
    before = db.execute("SELECT value FROM identity WHERE key = 'bundle'").fetchone()[0]
    parked = db.execute(
        "SELECT slot, signed FROM parked_parameters WHERE bundle = ? ORDER BY slot", (bundle,)
    ).fetchall()
    db.execute("DELETE FROM parked_parameters")
    db.execute("INSERT INTO parked_parameters SELECT ?, slot, signed FROM parameters", (before,))
    kept.forget_all_parameters(db)
    for slot, signed in parked:
        kept.write_parameters(db, slot, signed)
