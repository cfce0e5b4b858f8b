"""Trips that have ended, on their way to the disk: summary, breach and trace in one transaction.

Must never report half a trip, and never lose one without counting it. While the disk refuses,
trips wait in memory, bounded.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter, deque
from dataclasses import replace

from common.messages import Breach, encode
from edge_agent.errors import StorageError
from edge_agent.parameters import cloud_word, trials
from edge_agent.parameters.decisions import Identity
from edge_agent.parameters.trials import TrialEnd
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.reports import reports_of
from edge_agent.trips.trip_values import TripResult

log = logging.getLogger(__name__)

UNSAVED_TRIPS = 32  # finished trips held in memory while the disk refuses them


class FinishedTrips:
    """Trips in the order in which they ended; `save` as often as it may succeed."""

    def __init__(
        self, state: State, identity: Identity, bounds: outbox.Bounds, time: Timekeeper
    ) -> None:
        self._state, self._identity, self._bounds, self._time = state, identity, bounds, time
        self.trial_ends: deque[TrialEnd] = deque()
        """On disk, and not yet carried out."""
        self._waiting: deque[TripResult] = deque()
        self._lost: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, result: TripResult) -> None:
        """Take a trip in; beyond UNSAVED_TRIPS the oldest is lost, and counted once disk allows."""
        self._waiting.append(result)
        if len(self._waiting) > UNSAVED_TRIPS:
            _, breach = reports_of(self._waiting.popleft(), self._identity)
            self._lost.update(
                ["dropped_trip"] if breach is None else ["dropped_trip", "dropped_breach"]
            )
            log.error("trip_lost vehicle=%s the disk refuses writes", self._identity.vehicle_id)

    def save(self) -> list[Breach | None]:
        """Commit what waits, oldest first; of each trip that is on disk now, its breach or None."""
        saved: list[Breach | None] = []
        while self._waiting:
            try:
                saved.append(self._save(self._waiting[0]))
            except StorageError as error:
                vehicle_id = self._identity.vehicle_id
                log.warning("trip_not_saved vehicle=%s error=%s", vehicle_id, error)
                break
            self._waiting.popleft()
        return saved

    def _save(self, result: TripResult) -> Breach | None:
        result = self._settled(result)
        summary, breach = reports_of(result, self._identity)
        now = self._time.now().unix_if_known()
        with self._state.transaction() as db:
            # Before the breach: the cloud then goes on from what drives again.
            ended = trials.settle(db, result.beside, self._identity, self._time.now())
            if breach is not None:
                payload = encode(breach)
                outbox.put(db, "breach", breach.message_id, payload, now)
                kept.keep_trace(db, breach.message_id, breach.odometer, payload)
            is_new = outbox.put(db, "trip", summary.message_id, encode(summary), now)
            if is_new and result.started is not None:
                timekeeper.mark(db, "trip", summary.message_id, result.started)
            kept.finish_trip(db, result.trip_id)
            cloud_word.count_trip(db, self._identity.vehicle_id)
            self._count_dropped(db, now)
        self._lost.clear()
        if ended is not None:
            self.trial_ends.append(ended)
        log.info(
            "trip_finished vehicle=%s trip=%s samples=%d error_v=%.4f breach=%s revision=%d",
            *(self._identity.vehicle_id, result.trip_id, result.samples, result.error_v),
            *(breach is not None, result.revision),
        )
        return breach

    def _settled(self, result: TripResult) -> TripResult:
        """With the start as it is known by now."""
        if result.started is None:
            return result
        started = self._time.settled(result.started)
        return replace(result, started=started, started_at=started.unix_s)

    def _count_dropped(self, db: sqlite3.Connection, now: float) -> None:
        dropped = Counter(self._lost)
        for kind, number in outbox.evict(db, self._bounds, now).items():
            dropped[f"dropped_{kind}"] += number
        for name, number in dropped.items():
            kept.count(db, name, number)
