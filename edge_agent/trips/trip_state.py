"""A trip that is still running, as numbers that fit into a few kilobytes: what a restart needs.

Pure. Must never give back numbers that were altered, or that are not finite: such a trip is lost,
and is said to be.
"""

from __future__ import annotations

import math
import zlib
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from common.estimate import Discrepancy, Estimate
from edge_agent.trips.trip_record import TIME, table_width

FloatArray = npt.NDArray[np.float64]

SAVED_BUCKETS: Final = 64


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything of a `TripMonitor` but its model; at most SAVED_BUCKETS of its record, packed."""

    trip_id: str
    is_named: bool
    bundle: str
    revision: int
    started_at: float
    odometer_start: float
    odometer: float
    samples: int
    refused: int
    absolute_error: float
    covered: int
    band_sum: float
    theta: list[float]
    rate: list[float]
    covariance: list[float]
    estimate_odometer: float
    growth: list[float] | None
    discrepancy: tuple[float, float] | None
    feature_sums: list[float]
    signals: list[float]
    last: list[float]
    record: bytes
    stride: int
    provisional: int = 0

    @property
    def last_time_s(self) -> float:
        """Unix time of the trip's newest sample."""
        return self.started_at + self.last[TIME]

    def estimate(self) -> Estimate:
        """The parameters in force in this trip."""
        size = 2 * len(self.theta)
        return Estimate(
            theta=np.array(self.theta),
            rate=np.array(self.rate),
            covariance=np.array(self.covariance).reshape(size, size),
            odometer=self.estimate_odometer,
            growth=None if self.growth is None else np.array(self.growth),
            discrepancy=None if self.discrepancy is None else Discrepancy(*self.discrepancy),
        )

    def table(self) -> FloatArray:
        """The buckets of the trip (`trip_record.Buckets`)."""
        columns = np.frombuffer(zlib.decompress(self.record)).reshape(table_width(self.last), -1)
        return columns.T.astype(np.float64)


def packed(table: FloatArray) -> bytes:
    """A table for `Saved.record`: column by column, which is smaller."""
    return zlib.compress(np.ascontiguousarray(table.T).tobytes(), 6)


def encode(saved: Saved) -> bytes:
    """The bytes for the disk, with a checksum in front."""
    body = msgspec.msgpack.encode(saved)
    return zlib.crc32(body).to_bytes(4, "big") + body


def decode(raw: bytes, bundle: str) -> Saved:
    """Raises ValueError for bytes that are not what was written, and for another bundle's trip."""
    body = raw[4:]
    if zlib.crc32(body).to_bytes(4, "big") != raw[:4]:
        raise ValueError("its checksum is wrong")
    try:
        saved = msgspec.msgpack.decode(body, type=Saved)
        numbers = [
            *(saved.started_at, saved.odometer_start, saved.odometer, saved.absolute_error),
            *(
                saved.estimate_odometer,
                saved.band_sum,
                *saved.theta,
                *saved.rate,
                *saved.covariance,
            ),
            *(*saved.feature_sums, *saved.signals, *saved.last),
        ]
        is_whole = all(map(math.isfinite, numbers)) and bool(np.isfinite(saved.table()).all())
        saved.estimate()
    except (msgspec.MsgspecError, zlib.error) as error:
        raise ValueError(str(error)) from error
    if not is_whole or saved.samples < 1 or saved.stride < 1:
        raise ValueError("it holds a number that is none")
    if saved.bundle != bundle:
        raise ValueError("it was driven with another bundle")
    return saved
