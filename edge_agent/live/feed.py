"""The agent's side of the live view: once a second the loop leaves a picture of itself.

Called from the loop that takes the samples, the only thread that may look at the agent; other
threads read the newest picture, which never changes. Must never raise, nor cost the loop more than
two small queries a second.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from common.errors import ContractError
from common.estimate_state import MIN_TRIPS
from common.revision import Cause, decode_revision
from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.live.battery import BatteryView, Known
from edge_agent.live.view import LiveView, Points, RecentRing, recent_of, running_trip
from edge_agent.parameters import revision_records
from edge_agent.storage import kept, outbox
from edge_agent.timekeeping.clock import Clock
from edge_agent.trips.trip_values import TripSoFar

EVERY_S: Final = 1.0


@dataclass(frozen=True)
class Picture:
    """The view without what takes time to make, and what that is made of."""

    view: LiveView
    known: Known
    recent: Points


@dataclass(frozen=True)
class _Stored:
    """What is read from the state file."""

    outbox_messages: int = 0
    counters: tuple[tuple[str, int], ...] = ()
    trips: int = 0


class LiveFeed:
    """Of one agent."""

    def __init__(self, agent: Agent, clock: Clock) -> None:
        self._agent, self._clock = agent, clock
        self._next_s = clock.monotonic()
        self._recent = RecentRing()
        self._stored = _Stored()
        self._cause: tuple[int, Cause | None] = (0, None)
        self._odometer = agent.twin.estimate.odometer
        self._trip_seen_s: float | None = None
        self.newest = self._picture(None)

    def take(self) -> None:
        """The loop has come round; a picture is made when one is due."""
        now_s = self._clock.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        trip = self._agent.driving.so_far()
        if trip is not None:
            self._recent.add(self._clock.unix(), trip.newest)
            self._odometer, self._trip_seen_s = trip.odometer, now_s
        self.newest = self._picture(trip)

    def _picture(self, trip: TripSoFar | None) -> Picture:
        agent = self._agent
        self._stored = self._read()
        view = LiveView(
            at=round(self._clock.unix(), 3),
            vehicle_id=agent.identity.vehicle_id,
            agent_version=__version__,
            bundle=agent.identity.bundle,
            revision=agent.twin.revision,
            is_on_trial=agent.twin.confirmed is not None,
            provisional=agent.twin.provisional,
            is_connected=agent.connected,
            outbox_messages=self._stored.outbox_messages,
            counters=dict(self._stored.counters),
            threshold_v=agent.identity.manifest.error_threshold_v,
            trip=None if trip is None else running_trip(trip),
        )
        return Picture(view, self._known(trip), self._recent.points())

    def _known(self, trip: TripSoFar | None) -> Known:
        twin, seen_s = self._agent.twin, self._trip_seen_s
        return Known(
            estimate=twin.estimate,
            revision=twin.revision,
            provisional=twin.provisional,
            cause=self._cause_of(twin.revision),
            odometer=max(self._odometer, twin.estimate.odometer),
            trips=self._stored.trips + (trip is not None),
            failures=self._agent.statistics.failures_in_a_row,
            trip_age_s=None if seen_s is None else self._clock.monotonic() - seen_s,
            trip=trip,
        )

    def _read(self) -> _Stored:
        """A disk in trouble leaves the numbers of before."""
        db = self._agent.database
        try:
            return _Stored(
                outbox.size(db)[0],
                tuple(kept.counters(db).items()),
                kept.finished_trips(db, MIN_TRIPS),
            )
        except sqlite3.Error:
            return self._stored

    def _cause_of(self, revision: int) -> Cause | None:
        if self._cause[0] != revision:
            self._cause = (revision, self._read_cause(revision))
        return self._cause[1]

    def _read_cause(self, number: int) -> Cause | None:
        """Of the record whose number is in force."""
        db = self._agent.database
        try:
            on_trial = revision_records.trial(db)
            confirmed = [signed for _, signed in revision_records.confirmed(db)]
            kept_ones = [on_trial, *confirmed] if on_trial is not None else confirmed
            found = [decode_revision(signed.revision.encode()) for signed in kept_ones]
        except (sqlite3.Error, ContractError):
            return None
        causes = {revision.number: revision.cause for revision in reversed(found)}
        return causes.get(number)


def shown(picture: Picture, battery: BatteryView) -> LiveView:
    """The whole view; for threads other than the loop's."""
    recent = recent_of(picture.recent)
    return msgspec.structs.replace(picture.view, recent=recent, battery=battery.of(picture.known))
