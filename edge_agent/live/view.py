"""What somebody who looks at the agent sees: the values, as JSON.

Values only, and how the newest minutes are kept. Must never hold a position, a key or anything
that the dashboard of a car may not show.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from common.estimate_state import State
from common.sampling import Interval
from edge_agent.trips.trip_values import Compared, TripSoFar

Points = tuple[tuple[float, Compared], ...]  # Unix time, and what was seen then
RECENT_POINTS: Final = 300  # one a second: five minutes


class RunningTrip(msgspec.Struct, frozen=True):
    """The trip so far; errors and voltages in volts, `band95_v` half of the band's width."""

    trip_id: str
    revision: int
    started_at: float
    samples: int
    refused_samples: int
    error_v: float
    coverage95: float
    predicted_v: float
    band95_v: float
    measured_v: float

    @property
    def is_inside(self) -> bool:
        """Whether the newest measurement lies inside the band."""
        return abs(self.predicted_v - self.measured_v) <= self.band95_v


class Recent(msgspec.Struct, frozen=True):
    """The last minutes, one point a second at most: columns of equal length, `at` in Unix time."""

    at: list[float] = []
    predicted_v: list[float] = []
    band95_v: list[float] = []
    measured_v: list[float] = []


class Battery(msgspec.Struct, frozen=True):
    """How the battery is, with 95 % intervals, and how far to trust it.

    `health` is the ratio to new, `remaining` what the swept feature has left at the trip's mean
    conditions; None where the bundle lets none be read.
    """

    state: State
    reason: str | None
    odometer: float
    odometer_unit: str
    health: Interval | None
    remaining: Interval | None


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment (`at`, Unix time).

    `provisional` counts the steps that the vehicle made itself beyond its revision.
    """

    schema: int = 1
    at: float
    vehicle_id: str
    agent_version: str
    bundle: str
    revision: int
    is_on_trial: bool = False
    provisional: int = 0
    is_connected: bool
    outbox_messages: int
    counters: dict[str, int]
    threshold_v: float
    trip: RunningTrip | None = None
    recent: Recent = Recent()
    battery: Battery | None = None


class RecentRing:
    """The newest RECENT_POINTS."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, Compared]] = deque(maxlen=RECENT_POINTS)

    def add(self, at: float, newest: Compared) -> None:
        """One point; the same sample again is none."""
        if not self._points or self._points[-1][1] is not newest:
            self._points.append((at, newest))

    def points(self) -> Points:
        """As it stands, for another thread."""
        return tuple(self._points)


def recent_of(points: Points) -> Recent:
    """The columns of these."""
    return Recent(
        at=[round(at, 3) for at, _ in points],
        predicted_v=[round(point.predicted_v, 4) for _, point in points],
        band95_v=[round(point.band95_v, 4) for _, point in points],
        measured_v=[round(point.measured_v, 4) for _, point in points],
    )


def running_trip(trip: TripSoFar) -> RunningTrip:
    """The trip as it is shown."""
    return RunningTrip(
        trip_id=trip.trip_id,
        revision=trip.revision,
        started_at=trip.started_at,
        samples=trip.samples,
        refused_samples=trip.refused_samples,
        error_v=round(trip.error_v, 6),
        coverage95=round(trip.coverage95, 4),
        predicted_v=round(trip.newest.predicted_v, 4),
        band95_v=round(trip.newest.band95_v, 4),
        measured_v=round(trip.newest.measured_v, 4),
    )
