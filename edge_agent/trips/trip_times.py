"""The seconds of a live trip, counted by the clock that never jumps.

Pure. A sample whose time is this computer's own wall time is taken where it came, in seconds since
boot: the wall clock may be set in mid-trip by hours. A sample with a clock of its own (GPS, the
car's) is believed, but for a leap that its arrival contradicts. A recorded sample is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edge_agent.samples import Sample

OWN_CLOCK_S: Final = 5.0  # how old a line may be that this computer's own clock has stamped
LEAP_S: Final = 60.0  # a clock that departs so far from the arrivals has been set


def has_our_clock(sample: Sample) -> bool:
    """Whether the sample's time is what our wall clock said when it came."""
    arrived_s = sample.arrived_unix_s
    return arrived_s is not None and abs(sample.time_s - arrived_s) <= OWN_CLOCK_S


def moment_s(sample: Sample) -> float:
    """Seconds since boot at which a sample was taken; of one with another clock, when it came."""
    assert sample.monotonic_s is not None  # noqa: S101 - a live sample has it
    if not has_our_clock(sample) or sample.arrived_unix_s is None:
        return sample.monotonic_s
    return sample.monotonic_s + sample.time_s - sample.arrived_unix_s


@dataclass(frozen=True, slots=True)
class OurTimes:
    """Of a trip that our own clock has stamped: Unix time of a moment, and that moment."""

    unix_s: float
    monotonic_s: float

    def timed(self, sample: Sample) -> Sample:
        """The sample at its trip's own time."""
        if sample.monotonic_s is None:
            return sample
        return replace(sample, time_s=self.unix_s + moment_s(sample) - self.monotonic_s)

    def took(self, _timed: Sample) -> OurTimes:
        """The same: the wall clock does not move it."""
        return self


@dataclass(frozen=True, slots=True)
class TheirTimes:
    """Of a trip whose source brings its time: first and last sample taken, time and arrival."""

    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None

    def timed(self, sample: Sample) -> Sample:
        """The sample as it is, unless its clock has kept pace with the arrivals and now leaps."""
        if sample.monotonic_s is None or self.last is None or not self._keeps_pace():
            return sample
        expected_s = self.last[0] + sample.monotonic_s - self.last[1]
        leaps = abs(sample.time_s - expected_s) > LEAP_S or sample.time_s <= self.last[0]
        return replace(sample, time_s=expected_s) if leaps else sample

    def took(self, timed: Sample) -> TheirTimes:
        """After a timed sample of the trip."""
        if timed.monotonic_s is None:
            return self
        here = (timed.time_s, timed.monotonic_s)
        return TheirTimes(self.first or here, here)

    def _keeps_pace(self) -> bool:
        """A log that is played faster than it was driven tells nothing by its arrivals."""
        if self.first is None or self.last is None:
            return False
        elapsed_s, arrived_s = (self.last[i] - self.first[i] for i in (0, 1))
        return arrived_s > 0.0 and 0.5 * elapsed_s <= arrived_s <= 2.0 * elapsed_s


Times = OurTimes | TheirTimes
