"""The running trip: samples in, where a trip begins and ends, and what a restart does to it.

A finished trip is handed on whole. Must never touch the link, and never stop for bad input.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.config import Derived, Limits, Trips
from edge_agent.errors import RefusedSampleError, StorageError
from edge_agent.parameters.decisions import Identity
from edge_agent.run_statistics import Statistics
from edge_agent.samples import Sample, header_problem
from edge_agent.sources import BadRow, Item, Skipped
from edge_agent.storage import kept
from edge_agent.storage.refusals import Refusals
from edge_agent.storage.state import State
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.checkpoints import Checkpoints, continues
from edge_agent.trips.trip_clock import TripClock
from edge_agent.trips.trip_detection import Switch, TripStep, seen, step, turned
from edge_agent.trips.trip_monitor import TripMonitor, Twin
from edge_agent.trips.trip_values import TripResult, TripSoFar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TripRules:
    """How trips are told apart, and what is derived within them."""

    trips: Trips = field(default_factory=Trips)
    derived: Mapping[str, Derived] = field(default_factory=dict)


PLAIN_TRIPS: Final = TripRules()


class Driving:
    """One vehicle's running trip. `twin` gives what a trip that begins now predicts with."""

    def __init__(  # noqa: PLR0913 - each is another thing, passed in
        self,
        identity: Identity,
        state: State,
        limits: Limits,
        rules: TripRules,
        time: Timekeeper,
        refusals: Refusals,
        statistics: Statistics,
        twin: Callable[[], Twin],
        finished: Callable[[TripResult], None],
    ) -> None:
        self._identity, self._state, self._limits, self._rules = identity, state, limits, rules
        self._time, self._refusals, self._statistics = time, refusals, statistics
        self._twin, self._finished = twin, finished
        self._monitor: TripMonitor | None = None
        self._previous: Sample | None = None
        self._skipping: str | None = None
        self._switch: Switch | None = None
        self._checkpoints: Checkpoints | None = None
        self._is_restored = False
        self._clock = TripClock(time)

    def take(self, item: Item) -> None:
        """One sample or bad row from the source. Never raises for bad input or a failing disk."""
        try:
            self._take(item)
        except (StorageError, sqlite3.Error) as error:
            self._refusals.trouble(error)

    def _take(self, item: Item) -> None:
        if isinstance(item, Skipped):
            self._refusals.skipped(item)
            return
        self._statistics.items += 1
        problem = item.reason if isinstance(item, BadRow) else header_problem(item)
        if isinstance(item, BadRow) or problem is not None:
            if self._monitor is not None:
                self._monitor.refused += 1
            self._refusals.sample(item, str(problem))
            return
        self._switch = turned(self._switch, item, self._rules.trips)
        sample = seen(item, self._switch)
        if self._is_restored:
            self._continue_or_close(sample)
        found = self._step(sample)
        if found.ends_running_trip:
            self.end_trip()
        if found.trip_id is not None:
            self._take_in_trip(found.trip_id, sample)
            self._previous = sample

    @property
    def is_in_trip(self) -> bool:
        """Whether a trip is running."""
        return self._monitor is not None

    def ends_trip(self, item: Item) -> bool:
        """Whether this item would close the running trip."""
        if not isinstance(item, Sample) or header_problem(item) is not None:
            return False
        switch = turned(self._switch, item, self._rules.trips)
        return self._step(seen(item, switch)).ends_running_trip

    def so_far(self) -> TripSoFar | None:
        """The running trip as it stands; None where there is none."""
        return None if self._monitor is None else self._monitor.so_far()

    def keep_trips(self) -> None:
        """For a car that drives on whatever becomes of the agent: go on with the trip of before.

        From now on the running trip is written down now and then.
        """
        bundle = self._identity.bundle
        self._checkpoints = Checkpoints(
            self._state, self._refusals, bundle, self._limits, self._time
        )
        found = self._checkpoints.restored(self._twin(), self._rules.derived)
        if found is None:
            return
        monitor, last, started = found
        if self._is_finished(monitor.trip_id):
            self._checkpoints.forget(monitor.trip_id)
            return
        self._monitor, self._previous = monitor, last
        self._clock.restore(started)
        self._switch, self._is_restored = Switch(is_on=True), True

    def _continue_or_close(self, sample: Sample) -> None:
        """The first sample after a restart: of the same trip, or that trip stays what it was."""
        assert self._previous is not None  # noqa: S101 - restored with the trip
        why = self._why_another(self._previous, sample)
        trip_id = self._running_trip()
        if why is None and sample.trip_id == self._previous.trip_id:
            self._is_restored = False
            self._previous = replace(sample, trip_id=self._previous.trip_id)
            log.info("trip_continued vehicle=%s trip=%s", self._identity.vehicle_id, trip_id)
            self._refusals.count("trips_continued")
            return
        told = "trip_not_continued vehicle=%s trip=%s why=%r"
        log.warning(told, self._identity.vehicle_id, trip_id, why or "the next one has begun")
        self.end_trip()

    def _why_another(self, last: Sample, sample: Sample) -> str | None:
        """Why the first sample after a restart cannot be the same trip's; None when it can."""
        assert self._monitor is not None  # noqa: S101 - restored with its last sample
        if not self._clock.resume(self._monitor.started_at):
            return "how long the computer was off is not known: its clock has not been set"
        unit = self._identity.manifest.odometer_unit
        return continues(last, self._clock.timed(sample), self._limits.trip_gap_s, unit)

    def leave_trip(self) -> None:
        """Stop in the middle: write the trip down to go on later; else it is closed as partial."""
        monitor = self._monitor
        if monitor is None or self._is_restored:
            return  # what was restored is on disk as it is
        is_kept = self._checkpoints is not None and self._checkpoints.save(
            monitor, is_named=self._is_named(), started=self._clock.started
        )
        if not is_kept:
            self.end_trip(partial=True)

    def _is_named(self) -> bool:
        return self._previous is not None and self._previous.trip_id is not None

    def end_silent_trip(self, silent_s: float) -> None:
        """Close the running trip when no sample has come for longer than a gap in time may last.

        One that the source names goes on when the source does.
        """
        if silent_s > self._limits.trip_gap_s and not self._is_named():
            self.end_trip()

    def end_trip(self, *, partial: bool = False) -> None:
        """Close the running trip: error, decision, disk. One too short is counted and dropped.

        One from before a restart of which nothing more came is partial: its end was not seen.
        """
        monitor, self._monitor = self._monitor, None
        partial, self._is_restored = partial or self._is_restored, False
        self._skipping = self._previous = None
        if monitor is None:
            return
        if monitor.samples < self._limits.min_trip_samples:
            self._refusals.count("short_trips")
            if self._checkpoints is not None:
                self._checkpoints.forget(monitor.trip_id)
            return
        if partial:
            self._refusals.count("partial_trips")
        self._finished(replace(monitor.finish(partial=partial), started=self._clock.started))

    def _take_in_trip(self, trip_id: str, sample: Sample) -> None:
        if self._running_trip() is None:
            self._begin_trip(trip_id, sample)
        if self._monitor is None:
            return
        timed = self._clock.timed(sample)
        try:
            self._monitor.add(timed)
            self._clock.took(timed)
        except RefusedSampleError as error:
            self._refusals.sample(sample, error.problem)
        if self._checkpoints is not None:
            is_named = sample.trip_id is not None
            self._checkpoints.save_when_due(
                self._monitor, is_named=is_named, started=self._clock.started
            )

    def _begin_trip(self, trip_id: str, sample: Sample) -> None:
        """A trip that was reported before (a replay after a restart) is counted and passed over."""
        if self._is_finished(trip_id):
            self._skipping = trip_id
            self._statistics.passed_over += 1
            log.info("trip_passed_over vehicle=%s trip=%s", self._identity.vehicle_id, trip_id)
            self._refusals.count("trips_passed_over")
        else:
            points, derived = self._limits.trace_points, self._rules.derived
            self._clock.begin(sample)
            first = self._clock.timed(sample)
            self._monitor = TripMonitor(trip_id, first, self._twin(), points, derived)

    def _is_finished(self, trip_id: str) -> bool:
        """What cannot be read is not known: the cloud tells a trip that comes twice."""
        try:
            return kept.is_finished(self._state.connection, trip_id)
        except sqlite3.Error as error:
            self._refusals.trouble(error)
            return False

    def _step(self, sample: Sample) -> TripStep:
        mark = self._clock.mark(sample)
        return step(self._running_trip(), self._previous, sample, self._limits.trip_gap_s, mark)

    def _running_trip(self) -> str | None:
        return self._monitor.trip_id if self._monitor else self._skipping
