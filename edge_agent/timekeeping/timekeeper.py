"""Stamps what happens, and puts right what was stamped while nobody knew the time.

The wall time is *known* once a time source has set the clock in this boot; from then on it is
counted from that moment. What this boot stamped before is corrected on disk, in one transaction;
what an earlier boot left unknown stays marked. Must never change a stamp that was known.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from common.errors import TwinError
from common.messages import Acknowledgement, Provisional, TripSummary, decode, encode
from edge_agent.errors import StorageError
from edge_agent.storage import outbox
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock
from edge_agent.timekeeping.stamps import Anchor, Stamp

log = logging.getLogger(__name__)

KEPT_BOOTS: Final = 64
ASK_S: Final = 1.0  # how often the clock is asked until it is known
ASK_AGAIN_S: Final = 60.0  # and afterwards
BACKWARDS_S: Final = 60.0  # a time source may correct a clock by so much without contradiction

Stamped = Literal["trip", "ack", "provisional", "refused", "running", "link"]
CORRECTED: Final = ("trip", "ack", "provisional", "refused")
_MESSAGES: Final[Mapping[str, tuple[Any, str]]] = MappingProxyType(
    {
        "trip": (TripSummary, "started_at"),
        "ack": (Acknowledgement, "decided_at"),
        "provisional": (Provisional, "made_at"),
    }
)


class Timekeeper:
    """Stamps what happens now, and knows what earlier stamps are worth. Call `poll` often."""

    def __init__(self, state: State, clock: Clock) -> None:
        self.monotonic: Callable[[], float] = clock.monotonic
        self.boot_id = clock.boot_id()
        self._state, self._clock = state, clock
        self._next_ask_s = clock.monotonic()
        self._is_told = False
        self._anchor: Anchor | None = None
        self._is_noted = False
        self.boot = self._begin_boot()
        self.poll()

    @property
    def is_known(self) -> bool:
        """Whether the wall time is known: once in a boot, always in it."""
        return self._anchor is not None

    def now(self) -> Stamp:
        """This moment."""
        return self.at(self._clock.monotonic(), self._clock.unix())

    def at(self, monotonic_s: float, unix_s: float) -> Stamp:
        """A moment of this boot; `unix_s` is what the wall clock said, where nothing better is."""
        if self._anchor is None:
            return Stamp(self.boot, monotonic_s, unix_s, is_known=False)
        return Stamp(self.boot, monotonic_s, self._anchor.unix_at(monotonic_s), is_known=True)

    def settled(self, stamp: Stamp) -> Stamp:
        """The stamp with its wall time as it is known by now, or as it was."""
        if stamp.is_known:
            return stamp
        anchor = self._anchor if stamp.boot == self.boot else self._anchor_of(stamp.boot)
        if anchor is None:
            return stamp
        return replace(stamp, unix_s=anchor.unix_at(stamp.monotonic_s), is_known=True)

    def poll(self) -> bool:
        """Ask the clock when it is due; whether the time has become known by that."""
        now_s = self._clock.monotonic()
        if now_s < self._next_ask_s:
            return False
        was_known = self.is_known
        self._next_ask_s = now_s + (ASK_AGAIN_S if was_known else ASK_S)
        found = self._believable(Anchor(self._clock.unix(), now_s))
        self._anchor = found or self._anchor
        if self._anchor is not None and not self._is_noted:
            self._note(self._anchor)
        return self.is_known and not was_known

    def _believable(self, found: Anchor) -> Anchor | None:
        """Set by a time source, and no earlier than what is certain to be past."""
        if not self._clock.is_set():
            return None
        past_s = max(self._clock.not_before_s, self._newest_known_s() - BACKWARDS_S)
        if found.unix_s >= past_s:
            return found
        if not self._is_told:
            told = "time_not_believed unix=%.0f: it lies before %.0f, which is past"
            log.warning(told, found.unix_s, past_s)
        self._is_told = True
        return None

    def _newest_known_s(self) -> float:
        """The newest moment that was stamped as known: in this run, and on disk."""
        newest = self._anchor.unix_at(self._clock.monotonic()) if self._anchor else 0.0
        try:
            row = self._state.connection.execute("SELECT MAX(newest_unix_s) FROM boot").fetchone()
        except sqlite3.Error:
            return newest
        return max(newest, row[0] or 0.0)

    def _begin_boot(self) -> int:
        """This boot's number; on a disk that takes nothing, the one that it will have."""
        try:
            with self._state.transaction(may_be_lost=True) as db:
                db.execute("INSERT OR IGNORE INTO boot (boot_id) VALUES (?)", (self.boot_id,))
                db.execute(
                    "DELETE FROM boot WHERE seq <= (SELECT MAX(seq) FROM boot) - ?", (KEPT_BOOTS,)
                )
        except StorageError as error:
            log.warning("boot_not_noted error=%s", error)
        db = self._state.connection
        try:
            row = db.execute("SELECT seq FROM boot WHERE boot_id = ?", (self.boot_id,)).fetchone()
            if row is None:
                row = db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM boot").fetchone()
        except sqlite3.Error:
            return 0
        self._anchor = self._anchor_of(row[0])
        self._is_noted = self._anchor is not None
        return int(row[0])

    def _anchor_of(self, boot: int) -> Anchor | None:
        query = "SELECT known_unix_s, known_monotonic_s FROM boot WHERE seq = ?"
        try:
            row = self._state.connection.execute(query, (boot,)).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None or row[0] is None else Anchor(*row)

    def _note(self, anchor: Anchor) -> None:
        """The time is known: what this boot has stamped so far is put right, all or nothing."""
        try:
            with self._state.transaction(may_be_lost=True) as db:
                db.execute(
                    "INSERT INTO boot"
                    " (seq, boot_id, known_unix_s, known_monotonic_s, newest_unix_s)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (boot_id) DO UPDATE SET"
                    " known_unix_s = excluded.known_unix_s, newest_unix_s = excluded.newest_unix_s,"
                    " known_monotonic_s = excluded.known_monotonic_s",
                    (self.boot, self.boot_id, anchor.unix_s, anchor.monotonic_s, anchor.unix_s),
                )
                corrected = _correct(db, self.boot, anchor)
        except StorageError as error:
            log.warning("stamps_not_corrected error=%s: trying again", error)
            return
        self._is_noted = True
        log.info("time_known unix=%.0f corrected=%d", anchor.unix_s, corrected)


def mark(db: sqlite3.Connection, kind: Stamped, ref: str, stamp: Stamp) -> None:
    """Within the transaction that writes what is stamped: its time is to be corrected.

    A stamp that is known says how far time has come. Those of the running trip's start and of the
    link's last change are kept either way: seconds are counted from them.
    """
    if stamp.is_known:
        db.execute(
            "UPDATE boot SET newest_unix_s = MAX(COALESCE(newest_unix_s, 0), ?) WHERE seq = ?",
            (stamp.unix_s, stamp.boot),
        )
    is_counted_from = kind not in CORRECTED
    if is_counted_from:
        db.execute("DELETE FROM stamp WHERE kind = ?", (kind,))
    if is_counted_from or not stamp.is_known:
        db.execute(
            "INSERT OR REPLACE INTO stamp VALUES (?, ?, ?, ?, ?, ?)",
            (kind, ref, stamp.boot, stamp.monotonic_s, stamp.unix_s, stamp.is_known),
        )


def keep_stamped(
    db: sqlite3.Connection,
    kind: Literal["ack", "provisional"],
    message_id: str,
    payload: bytes,
    stamp: Stamp,
) -> None:
    """Put a message that bears this stamp into the outbox; one that is there stays as it is."""
    if outbox.put(db, kind, message_id, payload, stamp.unix_if_known()):
        mark(db, kind, message_id, stamp)


def running_trip(db: sqlite3.Connection, trip_id: str) -> Stamp | None:
    """The stamp of the running trip's start; None where the source told the time."""
    query = "SELECT boot, monotonic_s, unix_s, is_known FROM stamp WHERE kind = ? AND ref = ?"
    row = db.execute(query, ("running", trip_id)).fetchone()
    return None if row is None else Stamp(row[0], row[1], row[2], bool(row[3]))


def last_link(db: sqlite3.Connection) -> tuple[Stamp, bool] | None:
    """When the link last came or went, and whether it came."""
    query = "SELECT boot, monotonic_s, unix_s, is_known, ref FROM stamp WHERE kind = 'link'"
    row = db.execute(query).fetchone()
    if row is None:
        return None
    return Stamp(row[0], row[1], row[2], bool(row[3])), row[4] == "up"


def unknown(db: sqlite3.Connection, kind: Stamped) -> set[str]:
    """What of this kind bears a time that is not known."""
    return {row[0] for row in db.execute("SELECT ref FROM stamp WHERE kind = ?", (kind,))}


def is_newest_boot_known(db: sqlite3.Connection) -> bool:
    """Whether the clock was known in the boot in which the agent ran last."""
    row = db.execute("SELECT known_unix_s FROM boot ORDER BY seq DESC LIMIT 1").fetchone()
    return row is not None and row[0] is not None


def _correct(db: sqlite3.Connection, boot: int, anchor: Anchor) -> int:
    """How many stamps of this boot were put right."""
    marks = f"FROM stamp WHERE boot = ? AND kind IN ({', '.join('?' * len(CORRECTED))})"
    found = db.execute(f"SELECT kind, ref, monotonic_s {marks}", (boot, *CORRECTED)).fetchall()
    for kind, ref, monotonic_s in found:
        unix_s = anchor.unix_at(monotonic_s)
        if kind == "refused":
            db.execute("UPDATE refused SET at = ? WHERE seq = ?", (unix_s, int(ref)))
        else:
            _correct_message(db, kind, ref, unix_s)
    db.execute(f"DELETE {marks}", (boot, *CORRECTED))
    return len(found)


def _correct_message(db: sqlite3.Connection, kind: str, message_id: str, unix_s: float) -> None:
    """A message that still waits for its receipt; one that cannot be read stays as it is."""
    query = "SELECT payload FROM outbox WHERE message_id = ?"
    row = db.execute(query, (message_id,)).fetchone()
    message_type, field = _MESSAGES[kind]
    try:
        message = decode(row[0], message_type)
    except (TwinError, TypeError) as error:
        log.warning("stamp_not_corrected message=%s error=%s", message_id, error)
        return
    right = msgspec.structs.replace(message, **{field: round(unix_s, 3)}, time_known=True)
    outbox.rewrite(db, message_id, encode(right))
