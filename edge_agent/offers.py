"""Which message of the outbox is offered to the broker next, and which again.

Breaches go one at a time, each after the receipt of the one before: so they arrive in odometer
order, whatever is lost on the way. Must never free anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass

from common.topics import Kind
from edge_agent import outbox

WINDOW = 20
"""Messages with the broker at one time without its PUBACK."""
SCAN = 256
"""How far behind the oldest message a newer one may be offered."""
LONGEST_PATIENCE_S = 3600.0
"""How long the wait for a receipt grows while none comes: a cloud that is away costs no traffic."""

Publish = Callable[[Kind, bytes], int]


@dataclass(slots=True)
class _Offer:
    message_id: str
    kind: Kind
    at: float
    mid: int | None


class Offers:
    """What was offered in this connection, by message id. Times are the agent's clock, seconds."""

    def __init__(self, receipt_timeout_s: float) -> None:
        self._timeout_s = self._patience_s = receipt_timeout_s
        self._offers: dict[str, _Offer] = {}
        self._by_mid: dict[int, str] = {}

    def offer(self, db: sqlite3.Connection, publish: Publish, now: float) -> None:
        """Offer what is due, oldest first, as far as the window allows."""
        self._forget_late(now)
        for waiting in outbox.waiting(db, SCAN):
            if len(self._by_mid) >= WINDOW:
                return
            if self._is_due(waiting):
                self._send(waiting, outbox.payload(db, waiting.seq), publish, now)

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

    def reconnected(self) -> None:
        """Offer again what the broker took without a receipt; paho itself repeats the rest."""
        self._patience_s = self._timeout_s
        for offer in [offer for offer in self._offers.values() if offer.mid is None]:
            self._drop(offer.message_id)

    def _is_due(self, entry: outbox.Waiting) -> bool:
        if entry.message_id in self._offers:
            return False
        return entry.kind != "breach" or not any(
            offer.kind == "breach" for offer in self._offers.values()
        )

    def _send(self, entry: outbox.Waiting, payload: bytes, publish: Publish, now: float) -> None:
        mid = publish(entry.kind, payload)
        self._offers[entry.message_id] = _Offer(entry.message_id, entry.kind, now, mid)
        self._by_mid[mid] = entry.message_id

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
