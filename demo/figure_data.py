"""What the figures draw, as arrays: trips by vehicle, tables of errors, thinned histories.

Pure: rows in, arrays out. Must never know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from demo.results import FloatArray, RunResults, TripRow, VoltageHistory

# An error of nothing has no place on a logarithmic axis.
SMALLEST_ERROR_V = 1e-4
LAST_FIFTH = 0.2


def by_vehicle(trips: Sequence[TripRow]) -> dict[str, list[TripRow]]:
    """Each vehicle's trips in odometer order; the vehicles in the order of their first row."""
    found: dict[str, list[TripRow]] = {}
    for trip in trips:
        found.setdefault(trip.vehicle_id, []).append(trip)
    return {name: sorted(rows, key=lambda row: row.odometer) for name, rows in found.items()}


def first_vehicle(results: RunResults) -> str:
    """The vehicle that figures of a single one show; empty where there is none at all."""
    named = [row.vehicle_id for row in results.trips[:1]]
    return results.history.vehicle_id or "".join(named)


def error_tables(trips: Sequence[TripRow]) -> tuple[FloatArray, FloatArray]:
    """Errors of the frozen model and of the living twin, volts [vehicles, trips].

    The column is the number of the trip in its vehicle's life; NaN where a vehicle drove no more.
    """
    frozen = _table([[row.error_frozen_v for row in rows] for rows in by_vehicle(trips).values()])
    living = _table([[row.error_v for row in rows] for rows in by_vehicle(trips).values()])
    return frozen, living


def update_table(trips: Sequence[TripRow]) -> FloatArray:
    """1 where a trip brought an update, 0 where not, NaN where there was no trip."""
    return _table([[float(row.updated) for row in rows] for rows in by_vehicle(trips).values()])


def _table(rows: list[list[float]]) -> FloatArray:
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for filled, row in zip(table, rows, strict=True):
        filled[: len(row)] = row
    return np.where(np.isfinite(table), table, np.nan)


def for_log_axis(errors: FloatArray) -> FloatArray:
    """The same errors, the ones of next to nothing lifted to where a log axis can show them."""
    return np.where(np.isnan(errors), np.nan, np.maximum(errors, SMALLEST_ERROR_V))


def late_means(trips: Sequence[TripRow]) -> tuple[float, float]:
    """Mean errors of the last fifth of each vehicle's trips, volts: (frozen, living)."""
    late = [
        row
        for rows in by_vehicle(trips).values()
        for row in rows[-max(1, round(LAST_FIFTH * len(rows))) :]
    ]
    frozen = np.array([row.error_frozen_v for row in late])
    living = np.array([row.error_v for row in late])
    return _mean(frozen), _mean(living)


def _mean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def thinned(length: int, largest: int) -> slice:
    """Every so many-th of `length` points, so that about `largest` at most are left."""
    return slice(None, None, max(1, -(-length // largest)))


@dataclass(frozen=True)
class Envelope:
    """Lowest and highest voltage of each trip (or of a few trips together), [k + 1]."""

    odometer: FloatArray
    low_v: FloatArray
    high_v: FloatArray


def trip_starts(history: VoltageHistory, rows: Sequence[TripRow]) -> FloatArray:
    """Odometers at which trips of the history begin; evenly spaced when no trip is known."""
    starts: FloatArray = np.unique([float(row.odometer) for row in rows])
    inside: FloatArray = starts[(starts <= history.odometer[-1]) & (starts >= history.odometer[0])]
    if inside.size > 1:
        return inside
    even: FloatArray = np.linspace(history.odometer[0], history.odometer[-1], 101)
    return even[:-1]


def first_samples(odometer: FloatArray, starts: FloatArray) -> npt.NDArray[np.intp]:
    """Number of the first sample of each trip; a trip that has no sample is left out."""
    never_back = np.maximum.accumulate(odometer)
    found: npt.NDArray[np.intp] = np.unique(np.searchsorted(never_back, starts, side="left"))
    return found[found < odometer.size]


def envelope(odometer: FloatArray, voltage_v: FloatArray, starts: FloatArray) -> Envelope:
    """Lowest and highest of `voltage_v` [n] between one start and the next."""
    firsts = first_samples(odometer, starts)
    low = np.fmin.reduceat(voltage_v, firsts)
    high = np.fmax.reduceat(voltage_v, firsts)
    # The last trip reaches to its end, not only to its start.
    ends = np.append(odometer[firsts], odometer[-1])
    return Envelope(ends, np.append(low, low[-1]), np.append(high, high[-1]))


def window(odometer: FloatArray, starts: FloatArray, share: float, samples: int) -> slice:
    """Up to three whole trips, of about `samples` samples at most, at `share` of the life.

    `share` 0 begins with the first trip, 1 ends with the last.
    """
    edges = np.append(first_samples(odometer, starts), odometer.size)
    typical = max(1, int(np.median(np.diff(edges))))
    trips = min(3, max(1, samples // typical), edges.size - 1)
    first = round(share * (edges.size - 1 - trips))
    return slice(int(edges[first]), int(edges[first + trips]))
