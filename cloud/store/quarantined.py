"""Keep refused messages for the operator: each once, however often it comes; the oldest make room.

A batch of them costs a few statements, however many there are: who sends garbage must not slow
down those who do not. Must never keep more than its bounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BindParameter, Executable, Table, bindparam, delete, func, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from cloud.intake.interpretation import Delivery
from cloud.store import events
from cloud.store.portable import is_postgres
from cloud.store.tables import Quarantine, Vehicle
from common import messages
from common.errors import TopicError
from common.topics import parse_topic

ROWS: Final = 10_000
PAYLOAD_BYTES: Final = messages.MAX_PAYLOAD_BYTES
WHOLE_ROWS: Final = 500
"""The latest are kept whole, so that they can be taken in again; of older ones the beginning."""
BEGINNING_BYTES: Final = 4096

_TABLE: Final[Table] = Quarantine.__table__  # type: ignore[attr-defined]
_NUMBERS_LEFT_OUT: Final = 20
"""A transaction that is rolled back leaves its numbers out: so far back is looked again."""
_DIGESTS: BindParameter[Sequence[str]] = bindparam("digests", expanding=True)
_KNOWN = select(Quarantine.digest).where(col(Quarantine.digest).in_(_DIGESTS))
_AGAIN = (
    update(_TABLE)
    .where(_TABLE.c.digest == bindparam("of"))
    .values(times=_TABLE.c.times + bindparam("more"), received_at=bindparam("at"))
)
_NEWEST = select(func.max(Quarantine.id))


@dataclass(frozen=True)
class Refused:
    """A delivery and why it was refused."""

    delivery: Delivery
    error: Exception


def keep(db: Session, refused: Sequence[Refused], now: float) -> None:
    """Add these, or count them where they are known."""
    if not refused:
        return
    times: dict[str, int] = {}
    rows: dict[str, dict[str, object]] = {}
    for one in refused:
        digest = _digest(one.delivery)
        times[digest] = times.get(digest, 0) + 1
        rows[digest] = _row(one, digest, now)
    connection = db.connection()
    known = set(db.exec(_KNOWN, params={"digests": list(times)}))
    if known:
        again = [{"of": d, "more": times[d], "at": now} for d in sorted(known)]
        connection.execute(_AGAIN, again)
    new = [row | {"times": times[digest]} for digest, row in rows.items() if digest not in known]
    if new:
        connection.execute(_upsert(db), new)
        _make_room(db, len(new))
        _tell(db, new, now)


def _tell(db: Session, new: Sequence[dict[str, Any]], now: float) -> None:
    senders = {row["vehicle_id"] for row in new if row["vehicle_id"]}
    query = select(Vehicle.vehicle_id, Vehicle.cohort).where(col(Vehicle.vehicle_id).in_(senders))
    cohorts = dict(db.exec(query).all()) if senders else {}
    happened = [
        events.Happened(
            "quarantine.added",
            row["vehicle_id"],
            cohorts.get(row["vehicle_id"]),
            {name: row[name] for name in ("topic", "error", "reason")},
        )
        for row in new
    ]
    events.add_many(db, now, happened)


def _upsert(db: Session) -> Executable:
    """Another process may have added the same since."""
    if is_postgres(db):
        new = postgresql.insert(_TABLE)
        return new.on_conflict_do_update(index_elements=["digest"], set_=_counted(new.excluded))
    kept = sqlite.insert(_TABLE)
    return kept.on_conflict_do_update(index_elements=["digest"], set_=_counted(kept.excluded))


def _counted(come: Any) -> dict[str, Any]:
    return {"times": _TABLE.c.times + come.times, "received_at": come.received_at}


def _make_room(db: Session, added: int) -> None:
    connection = db.connection()
    newest = db.exec(_NEWEST).one() or 0
    connection.execute(delete(_TABLE).where(_TABLE.c.id <= newest - ROWS))
    first, last = newest - WHOLE_ROWS - added - _NUMBERS_LEFT_OUT, newest - WHOLE_ROWS
    beginning = func.substr(_TABLE.c.payload, 1, BEGINNING_BYTES)
    shortened = (
        update(_TABLE)
        .where(_TABLE.c.id.between(first, last), func.length(_TABLE.c.payload) > BEGINNING_BYTES)
        .values(payload=beginning)
    )
    connection.execute(shortened)


def _row(one: Refused, digest: str, now: float) -> dict[str, object]:
    delivery = one.delivery
    return {
        "topic": _storable(delivery.topic)[:256],
        "payload": delivery.payload[:PAYLOAD_BYTES],
        "payload_bytes": len(delivery.payload),
        "error": type(one.error).__name__,
        "reason": _storable(str(one.error))[:1024],
        "received_at": now,
        "digest": digest,
        "vehicle_id": _sender(delivery.topic),
    }


def _storable(text: str) -> str:
    """PostgreSQL stores neither a NUL nor half a character."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _digest(delivery: Delivery) -> str:
    topic = delivery.topic.encode(errors="surrogatepass")
    return hashlib.sha256(topic + b"\0" + delivery.payload).hexdigest()


def _sender(topic: str) -> str | None:
    try:
        return parse_topic(topic)[0]
    except TopicError:
        return None
