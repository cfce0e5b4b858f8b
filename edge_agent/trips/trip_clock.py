"""The running trip's own time: when it began by whose clock, and the seconds since.

Must never let a wall clock that is set in mid-trip or over a restart change what was counted.
"""

from __future__ import annotations

from edge_agent.samples import Sample
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.trip_times import OurTimes, TheirTimes, Times, has_our_clock, moment_s


class TripClock:
    """Of one trip at a time. `started` is our own stamp; None where the source told the time."""

    def __init__(self, time: Timekeeper) -> None:
        self.started: Stamp | None = None
        self._time = time
        self._times: Times = TheirTimes()

    def mark(self, sample: Sample) -> str:
        """What tells a trip id from another boot's, when the time in it is anybody's guess."""
        if self._time.is_known or not has_our_clock(sample):
            return ""
        return f"{self._time.boot_id.replace('-', '')[:8]}-{moment_s(sample):.0f}"

    def begin(self, first: Sample) -> None:
        """A trip begins with this sample."""
        self.started, self._times = None, TheirTimes()
        if has_our_clock(first):
            self.started = self._time.at(moment_s(first), first.time_s)
            self._times = OurTimes(self.started.unix_s, self.started.monotonic_s)

    def restore(self, started: Stamp | None) -> None:
        """A trip of before a restart waits to be gone on with."""
        self.started, self._times = started, TheirTimes()

    def resume(self, started_at: float) -> bool:
        """Go on counting from `started_at`, the trip's own start; whether that can be done.

        In the same boot it can. After another it takes a clock known then and known now.
        """
        if self.started is None:
            return True
        began, now = self._time.settled(self.started), self._time.now()
        if began.boot == now.boot:
            self._times = OurTimes(started_at, began.monotonic_s)
            return True
        if not (began.is_known and now.is_known):
            return False
        self._times = OurTimes(started_at + now.unix_s - began.unix_s, now.monotonic_s)
        return True

    def timed(self, sample: Sample) -> Sample:
        """The sample at its trip's own time."""
        return self._times.timed(sample)

    def took(self, timed: Sample) -> None:
        """A timed sample has become part of the trip."""
        self._times = self._times.took(timed)
