"""What a trip makes of the car's signals: the way since its start, means, sums, first values.

Pure; one instance per trip. Must never take a sample into account that was refused, and never fill
in a signal that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.config import Derived
from edge_agent.samples import Sample


@dataclass(frozen=True, slots=True)
class _Sum:
    """A signal's first and newest value, and its integral over time between them."""

    first: float
    value: float
    integral: float


class TripSignals:
    """Samples of one trip in, the same samples with their derived signals out."""

    def __init__(self, derived: Mapping[str, Derived]) -> None:
        self._derived = derived
        self._start: tuple[float, float] | None = None  # time, odometer
        self._last_s = 0.0
        self._sums: dict[str, _Sum] = {}

    def candidate(self, sample: Sample) -> dict[str, float]:
        """The signals of a sample that may still be refused: nothing changes."""
        found = dict(sample.signals)
        for name, what in self._derived.items():
            value = self._value(what, name, sample)
            if value is not None:
                found[name] = what.scale * value
        return found

    def take(self, sample: Sample) -> None:
        """Go on from this sample."""
        if not self._derived:
            return
        for name, what in self._derived.items():
            if what.of in sample.signals:
                self._sums[name] = self._next(name, sample.signals[what.of], sample)
        self._start = self._start or (sample.time_s, sample.odometer)
        self._last_s = sample.time_s

    def saved(self) -> list[float]:
        """Its numbers, for `restore`; empty before the first sample."""
        if self._start is None:
            return []
        numbers = [*self._start, self._last_s]
        for name in sorted(self._sums):
            one = self._sums[name]
            numbers += [one.first, one.value, one.integral]
        return numbers

    def restore(self, numbers: list[float]) -> None:
        """Go on where `saved` was. Raises ValueError when these are another trip's numbers."""
        if not numbers:
            return
        names = sorted(name for name, what in self._derived.items() if what.of)
        if len(numbers) != 3 + 3 * len(names):
            raise ValueError("other derived signals are configured now")
        self._start, self._last_s = (numbers[0], numbers[1]), numbers[2]
        for index, name in enumerate(names):
            self._sums[name] = _Sum(*numbers[3 + 3 * index : 6 + 3 * index])

    def _value(self, what: Derived, name: str, sample: Sample) -> float | None:
        if what.how == "odometer":
            return sample.odometer - (self._start[1] if self._start else sample.odometer)
        if what.of not in sample.signals:
            return None
        found = self._next(name, sample.signals[what.of], sample)
        if what.how == "first":
            return found.first
        if what.how == "integral":
            return found.integral
        elapsed_s = sample.time_s - self._start[0] if self._start else 0.0
        return found.integral / elapsed_s if elapsed_s > 0 else found.value

    def _next(self, name: str, value: float, sample: Sample) -> _Sum:
        """The trapezoid rule over what was taken last and this."""
        before = self._sums.get(name)
        if before is None:
            return _Sum(value, value, 0.0)
        step_s = sample.time_s - self._last_s
        return _Sum(before.first, value, before.integral + 0.5 * step_s * (before.value + value))
