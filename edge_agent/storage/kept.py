"""Small facts that the agent keeps beside the outbox: kept traces, parameters, counters, refusals.

Each function works inside the caller's transaction. Must never grow without bound.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from common.errors import TwinError
from common.manifest import Manifest
from common.messages import Breach, SignedRevision, decode
from common.trace import from_wire
from edge_agent.errors import DamagedRowError
from edge_agent.parameters.decisions import KeptTrace

KEPT_TRACES = 16
KEPT_TRIP_IDS = 10_000
KEPT_REFUSALS = 200
KEPT_REFUSAL_BYTES = 1024


@dataclass(frozen=True)
class Refusal:
    """Something that was not believed: when, what, why, and its first bytes; its number on disk."""

    at: float
    kind: str
    reason: str
    payload: bytes
    number: int = 0


def keep_trace(db: sqlite3.Connection, message_id: str, odometer: float, breach: bytes) -> None:
    """Keep a breach until its outcome is known; beyond KEPT_TRACES the oldest goes."""
    db.execute(
        "INSERT OR IGNORE INTO kept_trace (message_id, odometer, breach) VALUES (?, ?, ?)",
        (message_id, odometer, breach),
    )
    db.execute(
        "DELETE FROM kept_trace WHERE message_id NOT IN "
        "(SELECT message_id FROM kept_trace ORDER BY odometer DESC LIMIT ?)",
        (KEPT_TRACES,),
    )


def breaches(db: sqlite3.Connection) -> list[bytes]:
    """Every kept breach as it was sent, oldest first."""
    return [row[0] for row in db.execute("SELECT breach FROM kept_trace ORDER BY odometer")]


def awaiting(db: sqlite3.Connection) -> list[str]:
    """Ids of the breaches whose outcome is not known, oldest first."""
    rows = db.execute("SELECT message_id FROM kept_trace WHERE NOT settled ORDER BY odometer")
    return [_text(row[0], "kept_trace") for row in rows]


def settle(db: sqlite3.Connection, message_id: str) -> None:
    """The outcome of this breach is known, and with it that of every earlier one."""
    db.execute(
        "UPDATE kept_trace SET settled = 1 WHERE odometer <= "
        "(SELECT odometer FROM kept_trace WHERE message_id = ?)",
        (message_id,),
    )
    db.execute(
        "DELETE FROM kept_trace WHERE settled AND message_id NOT IN "
        "(SELECT message_id FROM kept_trace ORDER BY odometer DESC LIMIT 1)"
    )


def forget_before(db: sqlite3.Connection, odometer: float) -> None:
    """Drop the settled traces of a battery that was replaced at this odometer."""
    db.execute("DELETE FROM kept_trace WHERE settled AND odometer < ?", (odometer,))


def trace_for(db: sqlite3.Connection, message_id: str, manifest: Manifest) -> KeptTrace | None:
    """The kept trace of that breach, else the newest kept one, else None."""
    row = db.execute(
        "SELECT breach FROM kept_trace ORDER BY message_id = ? DESC, odometer DESC LIMIT 1",
        (message_id,),
    ).fetchone()
    if row is None:
        return None
    breach = decode(_bytes(row[0], "kept_trace"), Breach)
    return KeptTrace(breach.message_id, breach.odometer, from_wire(breach.trace, manifest))


def read_parameters(db: sqlite3.Connection, slot: str) -> SignedRevision | None:
    """The signed revision in a slot (see revision_records); None when empty or unreadable."""
    row = db.execute("SELECT signed FROM parameters WHERE slot = ?", (slot,)).fetchone()
    return signed_revision(row[0]) if row else None


def signed_revision(content: object) -> SignedRevision | None:
    """None for what is none: it may be something else than bytes, put there by somebody."""
    try:
        return decode(content, SignedRevision) if isinstance(content, bytes) else None
    except TwinError:
        return None


def read_slot(db: sqlite3.Connection, slot: str) -> object:
    """What stands in a slot, as it is; None for nothing."""
    row = db.execute("SELECT signed FROM parameters WHERE slot = ?", (slot,)).fetchone()
    return None if row is None else row[0]


def slots(db: sqlite3.Connection) -> set[str]:
    """The slots that hold anything, readable or not."""
    return {row[0] for row in db.execute("SELECT slot FROM parameters")}


def forget_parameters(db: sqlite3.Connection, slot: str) -> None:
    """Empty a slot."""
    db.execute("DELETE FROM parameters WHERE slot = ?", (slot,))


def move_parameters(db: sqlite3.Connection, slot: str, to: str) -> None:
    """What is in one slot, if anything, is in the other now, in place of what was there."""
    db.execute("UPDATE OR REPLACE parameters SET slot = ? WHERE slot = ?", (to, slot))


def forget_all_parameters(db: sqlite3.Connection) -> None:
    """Empty every slot."""
    db.execute("DELETE FROM parameters")


def write_parameters(db: sqlite3.Connection, slot: str, signed: bytes) -> None:
    """Put a signed revision in a slot."""
    db.execute("INSERT OR REPLACE INTO parameters VALUES (?, ?)", (slot, signed))


def read_anchor(db: sqlite3.Connection, name: str) -> bytes | None:
    """What outlives a bundle, by name; None also in a state of before there were any."""
    try:
        row = db.execute("SELECT value FROM anchor WHERE name = ?", (name,)).fetchone()
    except sqlite3.OperationalError:  # an older state, opened to be read
        return None
    return bytes(row[0]) if row else None


def write_anchor(db: sqlite3.Connection, name: str, value: bytes) -> None:
    """Keep something that outlives a bundle, in place of what had its name."""
    db.execute("INSERT OR REPLACE INTO anchor (name, value) VALUES (?, ?)", (name, value))


def bound_anchors(db: sqlite3.Connection, prefix: str, most: int) -> None:
    """Of the anchors whose name begins so, the `most` that came last stay."""
    db.execute(
        "DELETE FROM anchor WHERE name LIKE ? || '%' AND seq NOT IN "
        "(SELECT seq FROM anchor WHERE name LIKE ? || '%' ORDER BY seq DESC LIMIT ?)",
        (prefix, prefix, most),
    )


def finish_trip(db: sqlite3.Connection, trip_id: str) -> None:
    """Remember that the trip was reported, so that a replay does not report it again."""
    db.execute("INSERT OR IGNORE INTO finished_trip (trip_id) VALUES (?)", (trip_id,))
    forget_running_trip(db, trip_id)
    db.execute(
        "DELETE FROM finished_trip WHERE seq <= (SELECT MAX(seq) FROM finished_trip) - ?",
        (KEPT_TRIP_IDS,),
    )


def save_running_trip(db: sqlite3.Connection, trip_id: str, saved: bytes) -> None:
    """Keep how far the running trip has come, in place of what was kept of it before."""
    db.execute("INSERT OR REPLACE INTO running_trip VALUES (1, ?, ?)", (trip_id, saved))


def running_trip(db: sqlite3.Connection) -> bytes | None:
    """What `save_running_trip` kept last."""
    row = db.execute("SELECT saved FROM running_trip").fetchone()
    return _bytes(row[0], "running_trip") if row else None


def forget_running_trip(db: sqlite3.Connection, trip_id: str) -> None:
    """It has ended; an empty id forgets whichever it is."""
    db.execute("DELETE FROM running_trip WHERE ? IN (trip_id, '')", (trip_id,))


def is_finished(db: sqlite3.Connection, trip_id: str) -> bool:
    """Whether the trip was reported."""
    query = "SELECT 1 FROM finished_trip WHERE trip_id = ?"
    return db.execute(query, (trip_id,)).fetchone() is not None


def finished_trips(db: sqlite3.Connection, most: int) -> int:
    """How many trips were reported, counted up to `most`."""
    query = "SELECT COUNT(*) FROM (SELECT 1 FROM finished_trip LIMIT ?)"
    return int(db.execute(query, (most,)).fetchone()[0])


def count(db: sqlite3.Connection, name: str, by: int = 1) -> None:
    """Raise a counter."""
    db.execute(
        "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
        (name, by, by),
    )


def raise_to(db: sqlite3.Connection, name: str, value: int) -> None:
    """Let a counter be at least so high; it never falls."""
    db.execute(
        "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, ?)",
        (name, value, value),
    )


def counters(db: sqlite3.Connection) -> dict[str, int]:
    """Every counter that is not zero."""
    found = dict(db.execute("SELECT name, value FROM counter"))
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, int):
            raise DamagedRowError("counter", f"{name!r} is {value!r}")
    return found


def keep_refusal(db: sqlite3.Connection, refusal: Refusal) -> int:
    """Keep a refusal where a person can see it; the oldest go first. Its number."""
    added = db.execute(
        "INSERT INTO refused (at, kind, reason, payload) VALUES (?, ?, ?, ?)",
        (refusal.at, refusal.kind, refusal.reason, refusal.payload[:KEPT_REFUSAL_BYTES]),
    )
    db.execute(
        "DELETE FROM refused WHERE seq <= (SELECT MAX(seq) FROM refused) - ?", (KEPT_REFUSALS,)
    )
    return int(added.lastrowid or 0)


def refusals(db: sqlite3.Connection, limit: int) -> list[Refusal]:
    """The newest refusals, newest first."""
    rows = db.execute(
        "SELECT at, kind, reason, payload, seq FROM refused ORDER BY seq DESC LIMIT ?", (limit,)
    )
    return [
        Refusal(at, _text(kind, "refused"), _text(reason, "refused"), payload, number)
        for at, kind, reason, payload, number in rows
        if isinstance(at, float) and isinstance(payload, bytes)
    ]


def _text(value: object, table: str) -> str:
    if not isinstance(value, str):
        raise DamagedRowError(table, f"{value!r} is no text")
    return value


def _bytes(value: object, table: str) -> bytes:
    if not isinstance(value, bytes):
        raise DamagedRowError(table, "its content is not bytes")
    return value
