"""What must reach the cloud: on disk before it is offered, there until the cloud's receipt.

Bounded in messages, bytes and age: the oldest trip summaries go first, then what the vehicle made
for itself, then the oldest acknowledgements, the oldest breaches last, and each is counted. Must
never free a message on the broker's word, and never read the whole of it to know its size.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from common.topics import Kind
from edge_agent.errors import DamagedRowError

EVICTION_ORDER: tuple[Kind, ...] = ("trip", "provisional", "ack", "bundle_ack", "breach")
EVICTED_AT_ONCE: Final = 1000
"""With one commit: bounds that were lowered far below what waits must not hold the loop up."""
AGED_LOOK: Final = 256
"""How far behind the oldest message of a kind one is looked for that is too old."""
UNKNOWN_TIME: Final = 0.0
FIRST_KNOWN_TIME: Final = 1_577_836_800.0
"""2020-01-01: an earlier stamp is that of a clock that was not set."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message without its payload, which is read when it is sent."""

    seq: int
    message_id: str
    kind: Kind


@dataclass(frozen=True)
class Bounds:
    """How much the outbox may hold, and how long; `age_s` None: as long as it takes."""

    messages: int = 20_000
    payload_bytes: int = 64 * 1024 * 1024
    age_s: float | None = None


def put(
    db: sqlite3.Connection,
    kind: Kind,
    message_id: str,
    payload: bytes,
    put_at: float = UNKNOWN_TIME,
) -> bool:
    """Keep a message; the same id again is the same fact and changes nothing. Whether it is new.

    `put_at` is Unix time where it is known.
    """
    inserted = db.execute(
        "INSERT OR IGNORE INTO outbox (message_id, kind, payload, put_at, crc) "
        "VALUES (?, ?, ?, ?, ?)",
        (message_id, kind, payload, put_at, zlib.crc32(payload)),
    )
    return inserted.rowcount == 1


def waiting(db: sqlite3.Connection, limit: int) -> list[Waiting]:
    """The oldest messages, in the order in which they were kept."""
    rows = db.execute("SELECT seq, message_id, kind FROM outbox ORDER BY seq LIMIT ?", (limit,))
    return [Waiting(seq, *_texts(seq, message_id, kind)) for seq, message_id, kind in rows]


def _texts(seq: int, message_id: object, kind: object) -> tuple[str, Kind]:
    if not isinstance(message_id, str) or kind not in EVICTION_ORDER:
        raise DamagedRowError("outbox", f"message {seq} has no id or kind")
    return message_id, kind


def waiting_of(db: sqlite3.Connection, kind: Kind, limit: int, after_seq: int = 0) -> list[Waiting]:
    """The oldest messages of one kind that were kept after `after_seq`."""
    query = "SELECT seq, message_id, kind FROM outbox WHERE kind = ? AND seq > ? ORDER BY seq"
    rows = db.execute(f"{query} LIMIT ?", (kind, after_seq, limit))
    return [Waiting(seq, *_texts(seq, message_id, kind)) for seq, message_id, kind in rows]


def newest_seq(db: sqlite3.Connection) -> int:
    """The last message that was kept; 0 for none."""
    return int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM outbox").fetchone()[0])


def payload(db: sqlite3.Connection, seq: int) -> bytes:
    """What is published of one message. Raises DamagedRowError when it is not what was put."""
    row = db.execute("SELECT payload, crc FROM outbox WHERE seq = ?", (seq,)).fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise DamagedRowError("outbox", f"message {seq} has no payload")
    content, crc = row
    if crc is not None and crc != zlib.crc32(content):  # an older version put none
        raise DamagedRowError("outbox", f"the checksum of message {seq} is wrong")
    return bytes(content)


def rewrite(db: sqlite3.Connection, message_id: str, payload: bytes) -> None:
    """Put a message's content right, while it waits."""
    query = "UPDATE outbox SET payload = ?, crc = ? WHERE message_id = ?"
    db.execute(query, (payload, zlib.crc32(payload), message_id))


def free(db: sqlite3.Connection, message_ids: Collection[str]) -> int:
    """Let go of what the cloud has committed; how many there were."""
    freed = 0
    for message_id in message_ids:
        freed += db.execute("DELETE FROM outbox WHERE message_id = ?", (message_id,)).rowcount
    return freed


def size(db: sqlite3.Connection) -> tuple[int, int]:
    """(messages, payload bytes), as the triggers have kept them."""
    row = db.execute("SELECT messages, payload_bytes FROM outbox_size").fetchone()
    if row is None:
        return 0, 0
    if not all(isinstance(number, int) and number >= 0 for number in row):
        raise DamagedRowError("outbox_size", f"it holds {row}")
    return row[0], row[1]


def evict(db: sqlite3.Connection, bounds: Bounds, now: float = UNKNOWN_TIME) -> dict[str, int]:
    """Drop the oldest, in EVICTION_ORDER, until the bounds hold; how many of each kind went.

    At most EVICTED_AT_ONCE for a bound: the rest goes with the next call.
    """
    dropped = Counter[str]()
    if bounds.age_s is not None and now - bounds.age_s > FIRST_KNOWN_TIME:
        for kind in EVICTION_ORDER:
            dropped[kind] += _drop_aged(db, kind, now - bounds.age_s)
    left = EVICTED_AT_ONCE
    for kind in EVICTION_ORDER:
        while left and _is_over(db, bounds) and _drop_oldest(db, kind):
            dropped[kind] += 1
            left -= 1
    return {kind: number for kind, number in dropped.items() if number}


def _is_over(db: sqlite3.Connection, bounds: Bounds) -> bool:
    messages, payload_bytes = size(db)
    return messages > bounds.messages or payload_bytes > bounds.payload_bytes


def _drop_oldest(db: sqlite3.Connection, kind: Kind) -> bool:
    query = "DELETE FROM outbox WHERE seq = (SELECT MIN(seq) FROM outbox WHERE kind = ?)"
    return db.execute(query, (kind,)).rowcount > 0


def _drop_aged(db: sqlite3.Connection, kind: Kind, before: float) -> int:
    """A stamp from before the clock was set, or from the future, tells no age: that one stays."""
    query = (
        "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE kind = ? "
        "ORDER BY seq LIMIT ?) AND put_at >= ? AND put_at < ?"
    )
    return db.execute(query, (kind, AGED_LOOK, FIRST_KNOWN_TIME, before)).rowcount
