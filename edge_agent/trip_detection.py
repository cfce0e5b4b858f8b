"""Where one trip ends and the next begins.

Pure. By the source's own trip id where it has one, else by the ignition signal, else by a gap in
time, either way: a clock that was set back would otherwise refuse samples until it has caught up.
Must never merge samples of two trip ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.samples import Sample


@dataclass(frozen=True, slots=True)
class TripStep:
    """What a sample means: whether it ends the running trip, and to which trip it belongs."""

    ends_running_trip: bool
    trip_id: str | None


def step(running: str | None, previous: Sample | None, sample: Sample, gap_s: float) -> TripStep:
    """Judge one sample against the running trip (`running` is its id) and the sample before."""
    if sample.trip_id is not None:
        return TripStep(running not in {None, sample.trip_id}, sample.trip_id)
    if sample.ignition is False:
        return TripStep(running is not None, None)
    if running is None or previous is None:
        return TripStep(ends_running_trip=False, trip_id=trip_id_at(sample))
    if abs(sample.time_s - previous.time_s) > gap_s:
        return TripStep(ends_running_trip=True, trip_id=trip_id_at(sample))
    return TripStep(ends_running_trip=False, trip_id=running)


def trip_id_at(first: Sample) -> str:
    """The id of a trip that has none from its source: its start to the second in UTC, its odometer.

    A clock that begins again at every key-on gives the same start twice, the odometer does not.
    """
    started_at = datetime.fromtimestamp(first.time_s, UTC)
    return f"{started_at:%Y%m%dT%H%M%SZ}-{round(1000 * first.odometer)}"
