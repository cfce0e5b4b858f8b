"""The trips of a demonstration as arrays, and as the samples that an agent takes.

Pure. Must never repair a gap: a number that is missing is a signal that the sample does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from common.features import FeatureBuilder, MissingSignalError
from common.manifest import Manifest
from edge_agent.samples import Sample

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TripData:
    """One trip: Unix time [n], odometer [n], signals by name [n], measured voltage [n]."""

    trip_id: str
    time_s: FloatArray
    odometer: FloatArray
    signals: Mapping[str, FloatArray]
    voltage_v: FloatArray


@dataclass(frozen=True)
class VehicleData:
    """One vehicle: its trips in order, and the true state of health by trip where it is known."""

    vehicle_id: str
    trips: list[TripData]
    health_truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureRows:
    """The usable rows of a trip: features [m, F], and which rows of the trip they are [m]."""

    features: FloatArray
    rows: npt.NDArray[np.intp]


def ending_at(vehicles: Sequence[VehicleData], unix_s: float) -> list[VehicleData]:
    """The same trips, moved in time together so that the last sample of all is at `unix_s`."""
    shift_s = unix_s - max(float(v.trips[-1].time_s[-1]) for v in vehicles if v.trips)
    return [
        replace(v, trips=[replace(trip, time_s=trip.time_s + shift_s) for trip in v.trips])
        for v in vehicles
    ]


def samples_of(trip: TripData) -> Iterator[Sample]:
    """The trip, sample by sample."""
    names = list(trip.signals)
    columns = [trip.signals[name].tolist() for name in names]
    rows = zip(
        trip.time_s.tolist(), trip.odometer.tolist(), trip.voltage_v.tolist(), *columns, strict=True
    )
    for time_s, odometer, voltage_v, *values in rows:
        signals = {n: v for n, v in zip(names, values, strict=True) if v == v}  # noqa: PLR0124 - NaN
        yield Sample(time_s, odometer, signals, voltage_v, trip_id=trip.trip_id)


def feature_rows(trip: TripData, manifest: Manifest) -> FeatureRows:
    """The features that the agent sees of this trip, computed the same way."""
    builder = FeatureBuilder(manifest)
    found, rows = [], []
    for number, sample in enumerate(samples_of(trip)):
        try:
            found.append(builder.row(sample.time_s, sample.signals))
        except MissingSignalError:
            continue
        rows.append(number)
    return FeatureRows(np.array(found), np.array(rows, dtype=np.intp))
