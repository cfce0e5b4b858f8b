"""Whether the vehicle may calibrate for itself, and on what it drives until the cloud speaks again.

Off unless configured. Must never touch the revisions: a provisional has a slot of its own, and ends
with the cloud's word on it: a newer revision, or that its breach was declined.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

from common.calibrator import Decline
from common.errors import TwinError
from common.messages import Breach, Provisional, decode, encode
from edge_agent import config
from edge_agent.errors import StorageError
from edge_agent.parameters.decisions import Identity
from edge_agent.parameters.provisional import provisional_of, twin_on
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.trip_monitor import Twin

log = logging.getLogger(__name__)

SLOT: Final = "provisional"
HOUR_S: Final = 3600.0


def step_on_disk(db: sqlite3.Connection, revision: int) -> int:
    """Which step stands there on this revision, for `status`; 0 for none."""
    raw = kept.read_slot(db, SLOT)
    try:
        made = decode(raw, Provisional) if isinstance(raw, bytes) else None
    except TwinError:
        return 0
    return made.step if made is not None and made.base == revision else 0


class LocalRecalibration:
    """Of one vehicle. `base` is always the twin of the chain's revision that it runs."""

    def __init__(
        self,
        settings: config.LocalRecalibration,
        state: State,
        who: Identity,
        time: Timekeeper,
    ) -> None:
        self._after_s = settings.after_offline_h * HOUR_S
        self._state, self._who, self._time = state, who, time
        self._failures = 0
        self._cause: str | None = None
        self._offline_since_s: float | None = self._found_offline_since_s()

    def restored(self, base: Twin) -> Twin:
        """The provisional that was in force on this base, else the base."""
        try:
            raw = kept.read_slot(self._state.connection, SLOT)
            made = decode(raw, Provisional) if isinstance(raw, bytes) else None
        except (TwinError, sqlite3.Error) as error:
            log.warning("provisional_not_restored why=%r", str(error))
            made = None
        twin = None if made is None else twin_on(made, base, self._who)
        if made is None or twin is None:
            self.drop("it does not stand on the revision in force")
            return base
        self._cause = made.cause
        return twin

    def connected(self) -> None:
        """The link is there."""
        self._offline_since_s = None
        self._note_link("up")

    def disconnected(self) -> None:
        """The link is gone; said again while it is, this changes nothing."""
        if self._offline_since_s is None:
            self._offline_since_s = self._time.monotonic()
            self._note_link("down")

    @property
    def is_due(self) -> bool:
        """Whether the broker has been away for long enough."""
        since_s = self._offline_since_s
        return since_s is not None and self._time.monotonic() - since_s >= self._after_s

    def after(self, breach: Breach, twin: Twin) -> Twin:
        """What the next trip is driven on, after this breach of a trip driven on `twin`."""
        if not self.is_due or (breach.revision, breach.provisional) != (
            twin.revision,
            twin.provisional,
        ):
            return twin
        now = self._time.now()
        made = provisional_of(breach, twin, self._failures, self._who, now)
        if isinstance(made, Decline):
            self._failures += made.blames_estimate
            log.info("provisional_declined trip=%s why=%r", breach.trip_id, made.reason)
            return twin
        changed = twin_on(made, twin, self._who)
        if changed is None:
            return twin
        payload = encode(made)
        try:
            with self._state.transaction() as db:
                kept.write_parameters(db, SLOT, payload)
                timekeeper.keep_stamped(db, "provisional", made.message_id, payload, now)
        except StorageError as error:
            log.warning("provisional_not_kept error=%s", error)
            return twin
        self._failures, self._cause = 0, made.cause
        told = "provisional_in_force vehicle=%s base=%d step=%d error_v=%.4f was_v=%.4f"
        errors_v = (made.error_after_v, made.error_before_v)
        log.warning(told, made.vehicle_id, made.base, made.step, *errors_v)
        return changed

    def is_ended_by(self, declined: str) -> bool:
        """Whether the decline of this breach is the cloud's word on what is in force."""
        return declined == self._cause

    def drop(self, why: str) -> None:
        """The chain's revision is in force again."""
        self._failures, self._cause = 0, None
        try:
            if kept.read_slot(self._state.connection, SLOT) is None:
                return
            with self._state.transaction() as db:
                kept.forget_parameters(db, SLOT)
        except (StorageError, sqlite3.Error) as error:
            log.warning("provisional_not_dropped error=%s", error)
            return
        log.warning("provisional_dropped vehicle=%s why=%r", self._who.vehicle_id, why)

    def _found_offline_since_s(self) -> float:
        """Seconds since boot: of the last connection in this boot; of one before nothing is known.

        A connection that nobody saw end (the agent was killed) is taken to have lasted until now.
        """
        try:
            found = timekeeper.last_link(self._state.connection)
        except sqlite3.Error:
            found = None
        if found is None or found[0].boot != self._time.boot:
            return 0.0
        return self._time.monotonic() if found[1] else found[0].monotonic_s

    def _note_link(self, what: str) -> None:
        try:
            with self._state.transaction() as db:
                timekeeper.mark(db, "link", what, self._time.now())
        except StorageError as error:
            log.warning("link_not_noted error=%s", error)
