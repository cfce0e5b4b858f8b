"""Features of a sample: take the declared signals, compute the declared moving averages.

One instance per trip. Must never look ahead, and never take a missing signal for zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from common.manifest import Feature, Manifest


class MissingSignalError(KeyError):
    """A sample lacks a signal that the manifest needs."""

    def __init__(self, signal: str) -> None:
        self.signal = signal
        super().__init__(f"The sample has no signal {signal!r}, which the bundle needs.")

    def __str__(self) -> str:
        return str(self.args[0])


class FeatureBuilder:
    """Streams samples of one trip into feature rows, in the manifest's order."""

    def __init__(self, manifest: Manifest) -> None:
        self._features = manifest.features
        self._averages: dict[str, float] = {}
        self._last_time_s: float | None = None

    def row(self, time_s: float, signals: Mapping[str, float]) -> list[float]:
        """The feature row of one sample, taken into the averages. Raises MissingSignalError."""
        row = self.candidate_row(time_s, signals)
        self.take(time_s, row)
        return row

    def candidate_row(self, time_s: float, signals: Mapping[str, float]) -> list[float]:
        """The row of a sample that may still be refused: nothing changes. Raises as `row` does."""
        dt = 0.0 if self._last_time_s is None else max(time_s - self._last_time_s, 0.0)
        return [self._value(feature, dt, signals) for feature in self._features]

    def take(self, time_s: float, row: Sequence[float]) -> None:
        """Go on from this row."""
        self._last_time_s = time_s
        self._averages.update(
            (feature.name, value)
            for feature, value in zip(self._features, row, strict=True)
            if feature.moving_average
        )

    def _value(self, feature: Feature, dt: float, signals: Mapping[str, float]) -> float:
        average = feature.moving_average
        value = _signal(signals, average.signal if average else feature.name)
        if average is None or feature.name not in self._averages:
            return value
        before = self._averages[feature.name]
        return before + (1 - math.exp(-dt / average.time_constant_s)) * (value - before)


def _signal(signals: Mapping[str, float], name: str) -> float:
    try:
        return signals[name]
    except KeyError as error:
        raise MissingSignalError(name) from error
