"""Count, log and keep what was not believed, and say when the disk gives trouble.

Must never raise: what cannot be kept is logged.
"""

from __future__ import annotations

import logging
import sqlite3

from edge_agent import kept, timekeeper
from edge_agent.errors import StorageError
from edge_agent.samples import Sample
from edge_agent.sources import BadRow, Skipped
from edge_agent.state import State
from edge_agent.timekeeper import Timekeeper

log = logging.getLogger("edge_agent.agent")


class Refusals:
    """Of one vehicle, into its state."""

    def __init__(self, state: State, vehicle_id: str, time: Timekeeper) -> None:
        self._state, self._vehicle_id, self._time = state, vehicle_id, time

    def sample(self, item: Sample | BadRow, reason: str) -> None:
        """A sample or a row that is none."""
        text = item.text if isinstance(item, BadRow) else repr(item)
        self._keep("sample", reason, text.encode(errors="backslashreplace"))

    def message(self, reason: str, payload: bytes) -> None:
        """A message from the cloud's topics."""
        self._keep("message", reason, payload)

    def count(self, name: str) -> None:
        """Raise a counter."""
        try:
            with self._state.transaction() as db:
                kept.count(db, name)
        except StorageError as error:
            log.warning("count_not_kept name=%s error=%s", name, error)

    def skipped(self, skipped: Skipped) -> None:
        """What the source could not use: its numbers, and the examples for a person to look at."""
        examples = [
            (row.reason, row.text.encode(errors="backslashreplace")) for row in skipped.examples
        ]
        for reason, _ in examples:
            log.warning("source_trouble vehicle=%s reason=%r", self._vehicle_id, reason)
        try:
            with self._state.transaction() as db:
                for name, number in skipped.counts.items():
                    kept.count(db, name, number)
                for reason, payload in examples:
                    self._refuse(db, "frame", reason, payload)
        except StorageError as error:
            log.warning("refusal_not_kept error=%s", error)

    def trouble(self, error: Exception) -> None:
        """The loop goes on: the next item, the next second try again."""
        log.warning("storage_trouble vehicle=%s error=%r", self._vehicle_id, str(error))

    def _keep(self, kind: str, reason: str, payload: bytes) -> None:
        log.warning("refused_%s vehicle=%s reason=%r", kind, self._vehicle_id, reason)
        try:
            with self._state.transaction() as db:
                self._refuse(db, kind, reason, payload)
        except StorageError as error:
            log.warning("refusal_not_kept error=%s", error)

    def _refuse(self, db: sqlite3.Connection, kind: str, reason: str, payload: bytes) -> None:
        now = self._time.now()
        number = kept.refuse(db, kept.Refusal(now.unix_s, kind, reason, payload))
        timekeeper.mark(db, "refused", str(number), now)
