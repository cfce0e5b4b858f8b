"""Which message of the outbox is offered to the broker next, and which again.

What is live goes before the backlog, and the backlog no faster than its pace. Breaches go one at a
time, each after the receipt of the one before: so they arrive in odometer order, whatever is lost
on the way. Must never free anything.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from common.topics import Kind
from edge_agent.mqtt.broker_limits import AWS_IOT_CORE, BrokerLimits
from edge_agent.mqtt.pacing import Pace
from edge_agent.storage import outbox

log = logging.getLogger(__name__)

WINDOW = 20
"""Messages with the broker at one time without its PUBACK."""
STATUSES = 4
"""Places of the broker's window that are left to `status`."""
WINDOW_BYTES = 64 * 1024
"""The same in bytes: a slow line must bring what is on its way within the keep-alive."""
SCAN = 256
"""How far behind the oldest message a newer one may be offered."""
LONGEST_PATIENCE_S = 3600.0
"""How long the wait for a receipt grows while none comes: a cloud that is away costs no traffic."""

Publish = Callable[[Kind, bytes], int | None]


@dataclass(slots=True)
class _Offer:
    message_id: str
    kind: Kind
    size: int
    at: float
    mid: int | None


class Offers:
    """What was offered in this connection, by message id. Times are the agent's clock, seconds."""

    def __init__(self, receipt_timeout_s: float) -> None:
        self._timeout_s = self._patience_s = receipt_timeout_s
        self._offers: dict[str, _Offer] = {}
        self._by_mid: dict[int, str] = {}
        self._too_large: set[str] = set()
        self._backlog_end: int | None = None
        self._limits = AWS_IOT_CORE
        self._pace = Pace()

    def offer(self, db: sqlite3.Connection, publish: Publish, now: float) -> float:
        """Offer what is due, as far as window and pace allow; after how long there may be more."""
        self._forget_late(now)
        for entry in self._due(db):
            if self._is_window_full():
                return float("inf")  # a PUBACK will come
            payload = outbox.payload(db, entry.seq)
            if not self._limits.fits(len(payload)):
                self._pass_over(entry, len(payload))
                continue
            wait_s = self._pace.wait_s(len(payload), now)
            if wait_s > 0:
                return wait_s
            mid = publish(entry.kind, payload)
            if mid is None:
                return float("inf")  # the connection is gone, and the link will say so
            self._pace.take(len(payload), now)
            self._offers[entry.message_id] = _Offer(
                entry.message_id, entry.kind, len(payload), now, mid
            )
            self._by_mid[mid] = entry.message_id
        return float("inf")

    def accepted(self, mid: int) -> None:
        """The broker has taken a message: room for another."""
        offer = self._offers.get(self._by_mid.pop(mid, ""))
        if offer is not None and offer.mid == mid:
            offer.mid = None

    def freed(self, message_ids: Collection[str]) -> None:
        """The cloud's receipt has come."""
        self._patience_s = self._timeout_s
        for message_id in message_ids:
            self._drop(message_id)

    def reconnected(self, limits: BrokerLimits = AWS_IOT_CORE) -> None:
        """Nothing is on its way: everything without a receipt is offered again."""
        self._patience_s = self._timeout_s
        self._offers.clear()
        self._by_mid.clear()
        self._too_large.clear()
        self._backlog_end = None
        self._limits = limits
        self._pace = Pace()

    def _due(self, db: sqlite3.Connection) -> Iterator[outbox.Waiting]:
        """Verdicts, the next breach, the oldest summary, this connection's own, the backlog.

        The oldest summary stands before the new ones because a vehicle that is new to the cloud is
        started where its first trip began.
        """
        if self._backlog_end is None:
            self._backlog_end = outbox.newest_seq(db)
        for kind in outbox.EVICTION_ORDER:
            if kind not in ("trip", "breach"):
                yield from self._unoffered(outbox.waiting_of(db, kind, SCAN))
        if not any(offer.kind == "breach" for offer in self._offers.values()):
            breaches = outbox.waiting_of(db, "breach", 1 + len(self._too_large))
            yield from islice(self._unoffered(breaches), 1)
        yield from self._unoffered(outbox.waiting_of(db, "trip", 1))
        yield from self._unoffered(outbox.waiting_of(db, "trip", SCAN, self._backlog_end))
        yield from self._unoffered(outbox.waiting_of(db, "trip", SCAN))

    def _unoffered(self, entries: list[outbox.Waiting]) -> Iterator[outbox.Waiting]:
        for entry in entries:
            if entry.message_id not in self._offers and entry.message_id not in self._too_large:
                yield entry

    def _is_window_full(self) -> bool:
        if not self._by_mid:
            return False
        on_the_way = sum(offer.size for offer in self._offers.values() if offer.mid is not None)
        window = min(WINDOW, self._limits.in_flight - STATUSES)
        return len(self._by_mid) >= window or on_the_way >= WINDOW_BYTES

    def _pass_over(self, entry: outbox.Waiting, size: int) -> None:
        self._too_large.add(entry.message_id)
        told = (
            "message_too_large message=%s kind=%s bytes=%d: this broker takes less; raise its limit"
        )
        log.error(told, entry.message_id, entry.kind, size)

    def _forget_late(self, now: float) -> None:
        """No receipt in time although the broker took it: it may have gone to nobody."""
        late = [
            offer.message_id
            for offer in self._offers.values()
            if offer.mid is None and now - offer.at > self._patience_s
        ]
        for message_id in late:
            self._drop(message_id)
        if late:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)

    def _drop(self, message_id: str) -> None:
        offer = self._offers.pop(message_id, None)
        if offer is not None and offer.mid is not None:
            self._by_mid.pop(offer.mid, None)
