"""Count, log and keep what was not believed, and say when the disk gives trouble.

The first are written down at once; in a flood they are gathered and written now and then, so that
a broken sensor does not wear the flash out. Must never raise: what cannot be kept waits, bounded.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter, deque
from typing import Final

from edge_agent.errors import StorageError
from edge_agent.samples import Sample
from edge_agent.sources import BadRow, Skipped
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.timekeeping.timekeeper import Timekeeper

log = logging.getLogger("edge_agent.agent")

WRITES_AT_ONCE: Final = 64
WRITE_AGAIN_S: Final = 60.0
"""After WRITES_AT_ONCE writes one more may follow each WRITE_AGAIN_S."""


class Refusals:
    """Of one vehicle, into its state."""

    def __init__(self, state: State, vehicle_id: str, time: Timekeeper) -> None:
        self._state, self._vehicle_id, self._time = state, vehicle_id, time
        self.counts: Counter[str] = Counter()
        self._refused: deque[tuple[Stamp, str, str, bytes]] = deque(maxlen=kept.KEPT_REFUSALS)
        self._writes, self._writes_at = float(WRITES_AT_ONCE), time.monotonic()

    def sample(self, item: Sample | BadRow, reason: str) -> None:
        """A sample or a row that is none."""
        text = item.text if isinstance(item, BadRow) else repr(item)
        self._keep("sample", reason, text.encode(errors="backslashreplace"))

    def message(self, reason: str, payload: bytes) -> None:
        """A message from the cloud's topics."""
        self._keep("message", reason, payload)

    def count(self, name: str) -> None:
        """Raise a counter."""
        self.counts[name] += 1
        self.write_when_due()

    def skipped(self, skipped: Skipped) -> None:
        """What the source could not use: its numbers, and the examples for a person to look at."""
        self.counts.update(skipped.counts)
        for row in skipped.examples:
            log.warning("source_trouble vehicle=%s reason=%r", self._vehicle_id, row.reason)
            self._gather("frame", row.reason, row.text.encode(errors="backslashreplace"))
        self.write_when_due()

    def trouble(self, error: Exception) -> None:
        """The loop goes on: the next item, the next second try again; a broken file is mended."""
        log.warning("storage_trouble vehicle=%s error=%r", self._vehicle_id, str(error))
        if self._state.note(error):
            self._state.mend()

    def write_when_due(self) -> None:
        """What was gathered, unless too much was written lately."""
        if not self.counts and not self._refused:
            return
        now = self._time.monotonic()
        refilled = self._writes + (now - self._writes_at) / WRITE_AGAIN_S
        self._writes, self._writes_at = min(refilled, WRITES_AT_ONCE), now
        if self._writes >= 1.0:
            self._writes -= 1.0
            self.write()

    def write(self) -> None:
        """What was gathered; a power cut may take the last of it back."""
        if not self.counts and not self._refused:
            return
        try:
            with self._state.transaction(may_be_lost=True) as db:
                self._store(db)
        except StorageError as error:
            log.warning("refusals_not_kept error=%s", error)
            return
        self.counts.clear()
        self._refused.clear()

    def _keep(self, kind: str, reason: str, payload: bytes) -> None:
        log.warning("refused_%s vehicle=%s reason=%r", kind, self._vehicle_id, reason)
        self._gather(kind, reason, payload)
        self.write_when_due()

    def _gather(self, kind: str, reason: str, payload: bytes) -> None:
        self.counts[f"refused_{kind}"] += 1
        first = payload[: kept.KEPT_REFUSAL_BYTES]
        self._refused.append((self._time.now(), kind, reason, first))

    def _store(self, db: sqlite3.Connection) -> None:
        for name, number in self.counts.items():
            kept.count(db, name, number)
        for stamp, kind, reason, payload in self._refused:
            at = self._time.settled(stamp)
            number = kept.keep_refusal(db, kept.Refusal(at.unix_s, kind, reason, payload))
            timekeeper.mark(db, "refused", str(number), at)
