"""How far the running trip has come, on disk: written now and then, read after a restart.

One small row, replaced in one transaction every `checkpoint_s`: what is lost to a kill is at most
the samples since. Must never continue a trip that may be another one, and never raise for a disk
in trouble: a trip without a checkpoint is a trip all the same.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import Final

from edge_agent.config import Derived, Limits
from edge_agent.errors import StorageError
from edge_agent.samples import Sample
from edge_agent.storage import kept
from edge_agent.storage.refusals import Refusals
from edge_agent.storage.state import State
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips import trip_state
from edge_agent.trips.trip_monitor import TripMonitor, Twin
from edge_agent.trips.trip_record import VOLTAGE
from edge_agent.trips.trip_state import Saved

log = logging.getLogger(__name__)

FASTEST_M_S: Final = 100.0
METRES: Final = {"km": 1000.0, "mi": 1609.344}


class Checkpoints:
    """Of one vehicle's running trip."""

    def __init__(
        self, state: State, refusals: Refusals, bundle: str, limits: Limits, time: Timekeeper
    ) -> None:
        self._state, self._refusals, self._bundle = state, refusals, bundle
        self._limits, self._time = limits, time
        self._next_s = time.monotonic() + limits.checkpoint_s

    def save_when_due(self, monitor: TripMonitor, *, is_named: bool, started: Stamp | None) -> None:
        """Once every `checkpoint_s`."""
        if self._time.monotonic() >= self._next_s:
            self.save(monitor, is_named=is_named, started=started)

    def save(self, monitor: TripMonitor, *, is_named: bool, started: Stamp | None) -> bool:
        """Whether it is on disk now. `started`: the stamp of our own clock, if it told the time."""
        self._next_s = self._time.monotonic() + self._limits.checkpoint_s
        if monitor.samples == 0:
            return False
        raw = trip_state.encode(monitor.saved(self._bundle, is_named=is_named))
        try:
            with self._state.transaction(may_be_lost=True) as db:
                kept.save_running_trip(db, monitor.trip_id, raw)
                if started is not None:
                    timekeeper.mark(db, "running", monitor.trip_id, started)
        except StorageError as error:
            self._refusals.trouble(error)
            return False
        return True

    def forget(self, trip_id: str) -> None:
        """It has ended, and is not worth a report."""
        try:
            with self._state.transaction(may_be_lost=True) as db:
                kept.forget_running_trip(db, trip_id)
        except StorageError as error:
            self._refusals.trouble(error)

    def restored(
        self, twin: Twin, derived: Mapping[str, Derived]
    ) -> tuple[TripMonitor, Sample, Stamp | None] | None:
        """The trip that was running when the agent ended, its last sample and its start.

        One that cannot be read, or belongs to another bundle, is counted as lost.
        """
        raw = self._read()
        if raw is None:
            return None
        try:
            saved = trip_state.decode(raw, self._bundle)
            monitor = TripMonitor.restored(saved, twin, self._limits.trace_points, derived)
        except ValueError as error:
            log.error("running_trip_lost why=%r", str(error))  # noqa: TRY400 - it names the cause
            self._refusals.count("running_trips_lost")
            self.forget("")
            return None
        return monitor, _last_sample(saved), self._started(monitor.trip_id)

    def _started(self, trip_id: str) -> Stamp | None:
        try:
            return timekeeper.running_trip(self._state.connection, trip_id)
        except sqlite3.Error as error:
            self._refusals.trouble(error)
            return None

    def _read(self) -> bytes | None:
        try:
            return kept.running_trip(self._state.connection)
        except sqlite3.Error as error:
            self._refusals.trouble(error)
            return None


def continues(last: Sample, sample: Sample, gap_s: float, odometer_unit: str) -> str | None:
    """Why the first sample after a restart cannot be the same trip's; None when it can."""
    silent_s = sample.time_s - last.time_s
    way = sample.odometer - last.odometer
    if sample.trip_id is None and sample.ignition is False:
        return "the car was switched off meanwhile"
    if not 0 < silent_s <= gap_s:
        return f"its time is {silent_s:.0f} s after the last one"
    if way < 0:
        return "its odometer is lower"
    if odometer_unit in METRES and way * METRES[odometer_unit] > FASTEST_M_S * (silent_s + 1.0):
        return f"it is {way:g} {odometer_unit} further, {silent_s:.0f} s later"
    return None


def _last_sample(saved: Saved) -> Sample:
    trip_id = saved.trip_id if saved.is_named else None
    return Sample(saved.last_time_s, saved.odometer, {}, saved.last[VOLTAGE], trip_id)
