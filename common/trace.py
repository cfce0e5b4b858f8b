"""A trace as arrays: to and from the wire form, with the checks that need the manifest.

Pure. Must never let through a trace with wrong lengths, times that do not increase, or values
outside the manifest's plausible ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from common.errors import MalformedMessageError
from common.manifest import Manifest, Signal
from common.messages import Column, Trace

FloatArray = npt.NDArray[np.float64]

TIME_DIGITS = (2, 4, 6)
# What the wire's six digits may add to a value that stood exactly at its declared limit.
ROUNDING = 5e-6


@dataclass(frozen=True)
class TraceArrays:
    """time_s [m] from the trip's start, features [m, F] in manifest order, voltage_v [m]."""

    time_s: FloatArray
    features: FloatArray
    voltage_v: FloatArray


def shares(time_s: FloatArray) -> FloatArray:
    """How much of its trip each point [..., m] stands for: half of the way to either neighbour."""
    if time_s.shape[-1] == 1:
        return np.ones_like(time_s)
    half = 0.5 * np.diff(time_s, axis=-1)
    around = np.zeros_like(time_s)
    around[..., :-1] += half
    around[..., 1:] += half
    share: FloatArray = around / around.sum(axis=-1, keepdims=True)
    return share


def to_wire(arrays: TraceArrays, worst: Sequence[int] = ()) -> Trace:
    """Round to float32's worth of digits (the model sees no more) and fold constant columns.

    `worst` are the points that were chosen for their error.
    """
    return Trace(
        worst=list(worst),
        time_s=_rounded_times(arrays.time_s),
        features=[_fold(column) for column in arrays.features.T],
        voltage_v=[float(f"{value:.6g}") for value in arrays.voltage_v.tolist()],
    )


def from_wire(trace: Trace, manifest: Manifest) -> TraceArrays:
    """Unfold and check against the manifest: what is evidence. Raises MalformedMessageError.

    A point that was chosen for its error is none: it says what is rare, as if it were frequent.
    """
    points = len(trace.time_s)
    if len(trace.features) != len(manifest.features):
        raise _problem(f"{len(trace.features)} feature columns, not {len(manifest.features)}")
    columns = [_unfold(column, points) for column in trace.features]
    if any(len(column) != points for column in (*columns, trace.voltage_v)):
        raise _problem(f"columns of other lengths than its {points} times")
    arrays = TraceArrays(np.array(trace.time_s), np.array(columns).T, np.array(trace.voltage_v))
    _check_values(arrays, manifest)
    return without(arrays, trace.worst)


def without(arrays: TraceArrays, points: Sequence[int]) -> TraceArrays:
    """All but these. Raises MalformedMessageError unless they lie between the ends, in order."""
    if not points:
        return arrays
    bounds = (0, *points, len(arrays.time_s) - 1)
    if not all(before < after for before, after in pairwise(bounds)):
        raise _problem("worst points that are not between its ends, in order")
    rest = np.delete(np.arange(len(arrays.time_s)), points)
    return TraceArrays(arrays.time_s[rest], arrays.features[rest], arrays.voltage_v[rest])


def _check_values(arrays: TraceArrays, manifest: Manifest) -> None:
    if not np.all(np.diff(arrays.time_s) > 0):
        raise _problem("times that do not increase")
    signals: list[Signal] = [*manifest.features, manifest.target]
    values = np.column_stack([arrays.features, arrays.voltage_v])
    low = np.array([declared.minimum for declared in signals])
    high = np.array([declared.maximum for declared in signals])
    slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
    inside = ((values >= low - slack) & (values <= high + slack)).all(axis=0)
    if not inside.all():
        first = signals[int(np.argmin(inside))]
        raise _problem(f"{first.name} outside [{first.minimum:g}, {first.maximum:g}] {first.unit}")


def _rounded_times(time_s: FloatArray) -> list[float]:
    """As few digits as keep the times increasing: a fast bus needs more than a slow one."""
    for digits in TIME_DIGITS:
        rounded = time_s.round(digits)
        if np.all(np.diff(rounded) > 0):
            break
    times: list[float] = rounded.tolist()
    return times


def _unfold(column: Column, points: int) -> list[float]:
    return column if isinstance(column, list) else [column] * points


def _fold(column: FloatArray) -> Column:
    values = [float(f"{value:.7g}") for value in column.tolist()]
    return values[0] if len(set(values)) == 1 else values


def _problem(problem: str) -> MalformedMessageError:
    return MalformedMessageError("Breach", f"its trace has {problem}")
