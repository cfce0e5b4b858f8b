"""What is known of a trip: one sample beside its prediction, the trip so far, and at its end.

Values only. Must never hold anything that changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.estimate import Estimate
from edge_agent.parameters.canary import Beside
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.trip_record import Thinned


@dataclass(frozen=True)
class TripResult:
    """A finished trip. Errors in volts, over all samples; `coverage95` the share inside the band.

    The trip is `thinned`. `started` is the stamp of our own clock; None where the source told the
    time.
    """

    trip_id: str
    revision: int
    started_at: float
    duration_s: float
    odometer_start: float
    odometer_end: float
    samples: int
    refused_samples: int
    error_v: float
    band95_v: float
    coverage95: float
    feature_means: list[float]
    thinned: Thinned
    partial: bool
    beside: Beside | None = None
    started: Stamp | None = None
    provisional: int = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """One sample beside its prediction, volts; `band95_v` is half of the band's width."""

    row: list[float]
    predicted_v: float
    band95_v: float
    measured_v: float

    @property
    def error_v(self) -> float:
        """The absolute error."""
        return abs(self.predicted_v - self.measured_v)


@dataclass(frozen=True, slots=True)
class TripSoFar:
    """A running trip, for whoever looks at it. `estimate` is the trip's own (aligned)."""

    trip_id: str
    revision: int
    started_at: float
    odometer: float
    samples: int
    refused_samples: int
    error_v: float
    coverage95: float
    newest: Compared
    feature_means: list[float]
    estimate: Estimate
