"""Mileage: the mean that a vehicle's trips tell, how sure it is, and when there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cloud.mileage import DAY_S, last_moment, mileage_of
from cloud.store.tables import Trip
from tests.cloud_doubles import NOW


def trip(start_day: float, end_day: float, start_km: float, end_km: float) -> Trip:
    told: dict[str, Any] = {
        "started_at": NOW + start_day * DAY_S,
        "duration_s": (end_day - start_day) * DAY_S,
        "odometer_start": start_km,
        "odometer_end": end_km,
    }
    return Trip(**told)


def test_mileage_is_the_mean_and_its_scatter_makes_it_uncertain() -> None:
    steady = [trip(day, day + 1, 40.0 * day, 40.0 * (day + 1)) for day in range(36)]
    found = mileage_of(steady)
    assert found is not None
    assert found.per_day == pytest.approx(40.0)
    assert found.std == pytest.approx(0.0, abs=1e-9)
    weekly = np.array([10.0, 70.0] * 6)  # three days of each
    km = np.concatenate([[0.0], np.cumsum(np.repeat(weekly, 3))]).tolist()
    uneven = mileage_of([trip(day, day + 1, km[day], km[day + 1]) for day in range(36)])
    assert uneven is not None
    assert uneven.per_day == pytest.approx(40.0)
    assert uneven.std == pytest.approx(weekly.std(ddof=1) / math.sqrt(12))


def test_kilometres_that_no_trip_tells_of_count_all_the_same() -> None:
    trips = [trip(10.0 * i, 10.0 * i + 0.1, 500.0 * i, 500.0 * i + 5.0) for i in range(20)]
    found = mileage_of(trips)
    assert found is not None
    assert found.per_day == pytest.approx(50.0, rel=0.01)


@pytest.mark.parametrize(
    "trips",
    [
        [],
        [trip(0, 1, 0, 40), trip(1, 2, 40, 80), trip(2, 3, 80, 120)],
        [trip(i / 100, i / 100 + 0.01, i, i + 1) for i in range(20)],
        [trip(-i, 1 - i, 40 * i, 40 * i + 40) for i in range(20)],
        [trip(i, i + 1, 7.0, 7.0) for i in range(20)],
    ],
    ids=["none", "too few", "less than a day", "a clock that ran backwards", "never moved"],
)
def test_what_is_no_mileage_is_none(trips: list[Trip]) -> None:
    assert mileage_of(trips) is None


def test_trips_of_an_unknown_time_tell_kilometres_and_no_days() -> None:
    steady = [trip(day, day + 1, 40.0 * day, 40.0 * (day + 1)) for day in range(36)]
    for lost in steady[10:20]:
        lost.started_at, lost.time_known, lost.received_at = 0.0, False, NOW
    found = mileage_of(steady)
    assert found is not None
    assert found.per_day == pytest.approx(40.0)
    assert last_moment(steady[10]) == NOW
