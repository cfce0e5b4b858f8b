"""Whether the cloud's word is fresh: ask it, hear the answer, and count the trips without one.

Somebody who holds revisions back, or the vehicle that is never reached: both show as trips since
the last word, which no clock has to count. Must never change what drives: stale is said, not acted
upon.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Final

from common.freshness import believed
from common.messages import SignedFreshness
from common.trust import TrustStore
from edge_agent.storage import kept
from edge_agent.storage.state import State

log = logging.getLogger(__name__)

ANCHOR: Final = "trips-since-word"
HELD_BACK: Final = "held_back"
STALE_TRIPS: Final = 50
ASK_EVERY_S: Final = 3600.0


class CloudWord:
    """One vehicle's questions; times are the agent's monotonic clock, seconds."""

    def __init__(self, state: State, vehicle_id: str, draw: Callable[[], str]) -> None:
        self._state, self._vehicle_id, self._draw = state, vehicle_id, draw
        self._nonce = ""
        self._next_s = 0.0
        self._told = (0, 0)

    def question(self, now: float) -> str:
        """For the next status: a number that nobody has seen, or nothing when none is due."""
        if now < self._next_s:
            return ""
        self._next_s = now + ASK_EVERY_S
        self._nonce = self._draw()
        return self._nonce

    def ask_again(self) -> None:
        """A new connection: what was asked on the old one may be lost."""
        self._next_s = 0.0

    def hear(self, signed: SignedFreshness, trusted: TrustStore, judged: int) -> None:
        """`judged` is the newest revision that has come. Raises ContractError, StorageError.

        What an answer named, and has still not come with the next one, is held back.
        """
        found = believed(signed, trusted, self._vehicle_id, self._nonce)
        is_held_back = judged < self._told[0] or trusted.number < self._told[1]
        told, self._told = self._told, (found.revision, found.key_statement)
        with self._state.transaction() as db:
            kept.write_anchor(db, ANCHOR, b"0")
            if is_held_back:
                kept.count(db, HELD_BACK)
        if is_held_back:
            log.warning("held_back vehicle=%s revision=%d statement=%d", self._vehicle_id, *told)


def trips_since(db: sqlite3.Connection) -> int:
    """How many trips have been finished since the last word."""
    found = kept.read_anchor(db, ANCHOR)
    return int(found) if found is not None and found.isdigit() else 0


def count_trip(db: sqlite3.Connection, vehicle_id: str) -> None:
    """Another trip without a word, in the caller's transaction."""
    trips = trips_since(db) + 1
    kept.write_anchor(db, ANCHOR, str(trips).encode())
    if trips == STALE_TRIPS:
        log.warning("cloud_word_stale vehicle=%s trips=%d", vehicle_id, trips)
