"""How much a vehicle is driven in a day, read off the trips that the cloud has stored.

Pure. Must never answer from less than a day, or from times that contradict the odometer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cloud.store.tables import Trip
from common.forecast import Mileage

DAY_S: Final = 86400.0
MOST_TRIPS: Final = 1000  # the newest ones: what it was used for years ago says little
FEWEST_BLOCKS: Final = 3
MOST_BLOCKS: Final = 12


def mileage_of(trips: Sequence[Trip]) -> Mileage | None:
    """The mean over the span of the trips, and how well it is known; None when it is not.

    The span is cut into equal blocks; their scatter over the root of their number is the standard
    deviation of the mean. Kilometres between trips that never arrived count: the odometer saw them,
    and so do those of trips whose time is not known.
    """
    trips = [trip for trip in trips if trip.time_known]
    blocks = min(MOST_BLOCKS, len(trips) - 1)
    if blocks < FEWEST_BLOCKS:
        return None
    starts = [(trip.started_at, trip.odometer_start) for trip in trips]
    ends = [(last_moment(trip), trip.odometer_end) for trip in trips]
    times, odometers = np.array(sorted(starts + ends)).T
    span_days = (times[-1] - times[0]) / DAY_S
    if span_days < 1 or np.any(np.diff(odometers) < 0) or odometers[-1] == odometers[0]:
        return None
    edges = np.linspace(times[0], times[-1], blocks + 1)
    per_day = np.diff(np.interp(edges, times, odometers)) / (span_days / blocks)
    return Mileage(float(per_day.mean()), float(per_day.std(ddof=1) / np.sqrt(blocks)))


def last_moment(trip: Trip) -> float:
    """When a trip ended, by the vehicle's clock; where nobody had set that, when it arrived."""
    return trip.started_at + trip.duration_s if trip.time_known else trip.received_at
