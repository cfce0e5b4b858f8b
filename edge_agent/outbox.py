"""What must reach the cloud: on disk before it is offered, there until the cloud's receipt.

Bounded: when full, the oldest trip summaries go first, then the oldest acknowledgements, the oldest
breaches last, and each is counted. Must never free a message on the broker's word.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from common.topics import Kind

EVICTION_ORDER: tuple[Kind, ...] = ("trip", "ack", "bundle_ack", "breach")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message without its payload, which is read when it is sent."""

    seq: int
    message_id: str
    kind: Kind


@dataclass(frozen=True)
class Bounds:
    """How much the outbox may hold."""

    messages: int = 20_000
    payload_bytes: int = 64 * 1024 * 1024


def put(db: sqlite3.Connection, kind: Kind, message_id: str, payload: bytes) -> bool:
    """Keep a message; the same id again is the same fact and changes nothing. Whether it is new."""
    inserted = db.execute(
        "INSERT OR IGNORE INTO outbox (message_id, kind, payload) VALUES (?, ?, ?)",
        (message_id, kind, payload),
    )
    return inserted.rowcount == 1


def waiting(db: sqlite3.Connection, limit: int) -> list[Waiting]:
    """The oldest messages, in the order in which they were kept."""
    rows = db.execute("SELECT seq, message_id, kind FROM outbox ORDER BY seq LIMIT ?", (limit,))
    return [Waiting(*row) for row in rows]


def payload(db: sqlite3.Connection, seq: int) -> bytes:
    """What is published of one message."""
    content: bytes = db.execute("SELECT payload FROM outbox WHERE seq = ?", (seq,)).fetchone()[0]
    return content


def free(db: sqlite3.Connection, message_ids: Collection[str]) -> int:
    """Let go of what the cloud has committed; how many there were."""
    freed = 0
    for message_id in message_ids:
        freed += db.execute("DELETE FROM outbox WHERE message_id = ?", (message_id,)).rowcount
    return freed


def size(db: sqlite3.Connection) -> tuple[int, int]:
    """(messages, payload bytes)."""
    count, total = db.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0) FROM outbox"
    ).fetchone()
    return int(count), int(total)


def evict(db: sqlite3.Connection, bounds: Bounds) -> dict[str, int]:
    """Drop the oldest, in EVICTION_ORDER, until the bounds hold; how many of each kind went."""
    dropped: dict[str, int] = {}
    count, total = size(db)
    for kind in EVICTION_ORDER:
        while count > bounds.messages or total > bounds.payload_bytes:
            oldest = _oldest(db, kind)
            if oldest is None:
                break
            db.execute("DELETE FROM outbox WHERE seq = ?", (oldest[0],))
            count, total = count - 1, total - oldest[1]
            dropped[kind] = dropped.get(kind, 0) + 1
    return dropped


def _oldest(db: sqlite3.Connection, kind: str) -> Sequence[int] | None:
    row: Sequence[int] | None = db.execute(
        "SELECT seq, LENGTH(payload) FROM outbox WHERE kind = ? ORDER BY seq LIMIT 1", (kind,)
    ).fetchone()
    return row
