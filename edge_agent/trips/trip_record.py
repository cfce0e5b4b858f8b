"""A running trip in bounded memory, from which its trace is taken, with what the trace leaves out.

Samples are gathered in buckets of equally many, one each at first; when there are BUCKETS of them
neighbours are merged two by two. A bucket keeps its first row, its row of the worst error, and the
lowest and highest value of every column, so that how far any sample of the trip lies from the
trace can be said for certain. Pure. Must never keep a row that is none of the trip's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.messages import MAX_TRACE_POINTS
from common.thinning import chosen_rows, worst_rows
from common.trace import TraceArrays, shares

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

BUCKETS: Final = 4096
WORST_SHARE: Final = 0.1  # as many worst errors come on top of a trace's points
FRESH_ROWS: Final = 512  # taken one by one before they are gathered together
# Of a row: its number in the trip, seconds since the trip's start, features, voltage, |error|.
NUMBER, TIME, VOLTAGE, ERROR = 0, 1, -2, -1
VALUES: Final = slice(2, -1)  # features and voltage


@dataclass(frozen=True)
class Thinned:
    """A trace, which of its points were chosen for their error, and what it leaves out.

    No sample of the trip lies farther from straight lines between the trace's points than
    `within` [F + 1]: features in their units, and last the voltage in volts. `error_v` is the mean
    absolute error over the other points, each by its share of the samples: its difference from the
    trip's is what this evidence is wrong by.
    """

    trace: TraceArrays
    worst: list[int]
    within: FloatArray
    error_v: float


@dataclass(frozen=True)
class Buckets:
    """n buckets in their order: `first`, `worst` and `last` row [n, F + 4], extremes [n, F + 1].

    Of `last` only number and time, [n, 2].
    """

    first: FloatArray
    worst: FloatArray
    last: FloatArray
    low: FloatArray
    high: FloatArray

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of_rows(cls, rows: FloatArray) -> Buckets:
        """Each row alone."""
        values = rows[:, VALUES]
        return cls(rows, rows, rows[:, : VALUES.start], values, values)

    @classmethod
    def of_table(cls, table: FloatArray) -> Buckets:
        """The inverse of `table`."""
        width = table.shape[1] // 4 + 1
        ends = np.cumsum([width, width, 2, width - 3])
        return cls(*np.split(table, ends, axis=1))

    def table(self) -> FloatArray:
        """Everything in one array [n, 4 F + 12] (`table_width`)."""
        return np.hstack([self.first, self.worst, self.last, self.low, self.high])

    def and_then(self, later: Buckets) -> Buckets:
        """These, and after them the later ones."""
        return Buckets.of_table(np.vstack([self.table(), later.table()]))

    def merged(self, starts: IntArray) -> Buckets:
        """One bucket of all from each start to the next."""
        if len(starts) == len(self):
            return self
        ends = np.append(starts[1:], len(self))
        return Buckets(
            self.first[starts],
            self.worst[_worst_of(self.worst[:, ERROR], starts, ends)],
            self.last[ends - 1],
            np.minimum.reduceat(self.low, starts, axis=0),
            np.maximum.reduceat(self.high, starts, axis=0),
        )

    def by_stride(self, stride: int) -> Buckets:
        """Merged so that each holds the samples of one multiple of `stride`."""
        group = self.first[:, NUMBER] // stride
        return self.merged(np.flatnonzero(np.diff(group, prepend=-1.0)))


class TripRecord:
    """Rows of one trip in, a trace out. At most BUCKETS + FRESH_ROWS rows are held."""

    def __init__(self, features: int) -> None:
        self.seen = 0
        self.stride = 1
        self.last: list[float] = []
        self._fresh = np.empty((FRESH_ROWS, features + 4))
        self._count = 0
        self._table = np.empty((BUCKETS + FRESH_ROWS, 4 * features + 12))
        self._held = 0

    def add(self, time_s: float, row: list[float], voltage_v: float, error_v: float) -> None:
        """Take one sample in: its seconds since the trip's start, features, voltage, |error|."""
        self.last = [self.seen, time_s, *row, voltage_v, error_v]
        self._fresh[self._count] = self.last
        self._count += 1
        self.seen += 1
        if self._count == FRESH_ROWS:
            self._gather()

    def thinned(self, points: int) -> Thinned:
        """A trace of `points`, at least 4, and its worst errors; after at least two samples."""
        self._gather()
        return thinned(self._buckets(), np.array([self.last]), points)

    def saved(self, most: int) -> tuple[FloatArray, int]:
        """Table and stride of as many buckets as fit into `most`; nothing is lost here."""
        self._gather()
        buckets, stride = self._buckets(), self.stride
        while len(buckets) > most:
            stride *= 2
            buckets = buckets.by_stride(stride)
        return buckets.table(), stride

    def restore(self, table: FloatArray, last: list[float], stride: int) -> None:
        """Go on from what was `saved`, and the `last` row."""
        self._hold(0, table)
        self.stride = stride
        self.last, self.seen = list(last), int(last[NUMBER]) + 1

    def _buckets(self) -> Buckets:
        return Buckets.of_table(self._table[: self._held])

    def _gather(self) -> None:
        """The newest bucket may still grow."""
        grown = max(self._held - 1, 0)
        newest = Buckets.of_table(self._table[grown : self._held])
        fresh = Buckets.of_rows(self._fresh[: self._count])
        self._hold(grown, newest.and_then(fresh).by_stride(self.stride).table())
        self._count = 0
        while self._held > BUCKETS:
            self.stride *= 2
            self._hold(0, self._buckets().by_stride(self.stride).table())

    def _hold(self, start: int, table: FloatArray) -> None:
        self._held = start + len(table)
        self._table[start : self._held] = table


def table_width(row: Sequence[float]) -> int:
    """Columns of a table of buckets of such rows."""
    return 4 * len(row) - 4


def thinned(buckets: Buckets, last: FloatArray, points: int) -> Thinned:
    """The trace of a trip that ended with the row `last` [1, F + 4].

    Ends and knees are first rows of buckets, which noise did not choose: `points` of them. A tenth
    as many are the worst rows of the worst buckets.
    """
    end = last[last[:, NUMBER] > buckets.first[-1, NUMBER]]
    rows, worst = np.vstack([buckets.first, end]), np.vstack([buckets.worst, end])
    most = int(WORST_SHARE * points)
    chosen = chosen_rows(rows[:, VOLTAGE], min(points, MAX_TRACE_POINTS - most))
    known = chosen[rows[chosen, NUMBER] == worst[chosen, NUMBER]]
    bad = worst[worst_rows(worst[:, ERROR], most, known, points)]
    evidence = rows[chosen]
    bad = bad[~np.isin(bad[:, NUMBER], evidence[:, NUMBER])]  # the last row may be both
    trace = np.vstack([evidence, bad])
    trace = trace[np.argsort(trace[:, NUMBER])]
    values = trace[:, VALUES].copy()
    return Thinned(
        trace=TraceArrays(trace[:, TIME].copy(), values[:, :-1], values[:, -1]),
        worst=np.flatnonzero(np.isin(trace[:, NUMBER], bad[:, NUMBER])).tolist(),
        within=_within(buckets, trace),
        error_v=float(shares(evidence[:, NUMBER]) @ evidence[:, ERROR]),
    )


def _within(buckets: Buckets, trace: FloatArray) -> FloatArray:
    """The farthest [F + 1] that any sample of the buckets may lie from the trace's lines.

    Over a bucket the lines are extreme at its ends, or at points of the trace within it.
    """
    times, values = trace[:, TIME], trace[:, VALUES]
    inside = np.searchsorted(buckets.first[:, TIME], times, side="right") - 1
    farthest = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        at_ends = [
            np.interp(ends[:, TIME], times, values[:, column])
            for ends in (buckets.first, buckets.last)
        ]
        least, most = np.minimum(*at_ends), np.maximum(*at_ends)
        np.minimum.at(least, inside, values[:, column])
        np.maximum.at(most, inside, values[:, column])
        above, below = buckets.high[:, column] - least, most - buckets.low[:, column]
        farthest[column] = max(above.max(), below.max())
    return farthest


def _worst_of(error_v: FloatArray, starts: IntArray, ends: IntArray) -> IntArray:
    """The row of the first largest error of each group."""
    sizes = ends - starts
    largest = np.repeat(np.maximum.reduceat(error_v, starts), sizes)
    rows = np.flatnonzero(error_v == largest)
    group = np.repeat(np.arange(len(starts)), sizes)[rows]
    return rows[np.unique(group, return_index=True)[1]]
