"""One sample, and the checks that make it believable.

Pure. Must never repair a value: a sample is taken as it is or refused with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common.errors import TopicError
from common.manifest import Manifest
from common.messages import MAX_ODOMETER
from common.topics import check_identifier
from edge_agent.errors import RefusedSampleError

END_OF_TIME_S = 32_503_680_000  # the contract's latest time, the year 3000


@dataclass(frozen=True, slots=True)
class Sample:
    """One row at one instant. `time_s` is Unix time; `odometer` in the manifest's odometer unit.

    `trip_id` where the source knows it, `ignition` where the source has that signal; `monotonic_s`
    and `arrived_unix_s`, what our clocks said when it came, where it comes from a car that drives
    now.
    """

    time_s: float
    odometer: float
    signals: Mapping[str, float]
    voltage_v: float
    trip_id: str | None = None
    ignition: bool | None = None
    monotonic_s: float | None = None
    arrived_unix_s: float | None = None

    def arrived_at(self, monotonic_s: float, unix_s: float | None = None) -> Sample:
        """The same sample, with the moment at which it came."""
        return replace(self, monotonic_s=monotonic_s, arrived_unix_s=unix_s)


def header_problem(sample: Sample) -> str | None:
    """What is wrong with the time, odometer or trip id, on which trips are told apart."""
    if not 0 <= sample.time_s < END_OF_TIME_S:  # also catches NaN
        return f"its time is {sample.time_s:g} s, no Unix time before the year 3000"
    if not 0 <= sample.odometer <= MAX_ODOMETER:  # also catches NaN
        return f"its odometer is {sample.odometer:g}, no vehicle's"
    if sample.trip_id is not None:
        return _trip_id_problem(sample.trip_id)
    return None


def check_plausible(row: Sequence[float], sample: Sample, manifest: Manifest) -> None:
    """Raise RefusedSampleError unless every value is finite and inside its declared range."""
    problem = header_problem(sample)
    if problem is not None:
        raise RefusedSampleError(problem)
    for declared, value in zip(manifest.features, row, strict=True):
        if not declared.minimum <= value <= declared.maximum:  # also catches NaN
            raise _implausible(declared.name, value, declared.minimum, declared.maximum)
    target = manifest.target
    if not target.minimum <= sample.voltage_v <= target.maximum:
        raise _implausible(target.name, sample.voltage_v, target.minimum, target.maximum)


def _trip_id_problem(trip_id: str) -> str | None:
    try:
        check_identifier("trip id", trip_id)
    except TopicError as error:
        return str(error)
    return None


def _implausible(name: str, value: float, lower: float, upper: float) -> RefusedSampleError:
    return RefusedSampleError(f"{name} is {value:g}, plausible is {lower:g} to {upper:g}")
