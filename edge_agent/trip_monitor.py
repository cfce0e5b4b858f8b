"""Follow one trip: predict each sample as it arrives, sum the error, keep what a trace needs.

Pure computation with bounded memory, whatever the trip's length. Must never read a clock or write
anything; a refused sample raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from common import calibration
from common.calibration import Estimate, Settings
from common.features import FeatureBuilder, MissingSignalError
from common.manifest import Manifest
from common.model import VoltageModel
from common.thinning import thin
from common.trace import TraceArrays
from edge_agent.canary import Beside, Canary
from edge_agent.config import Derived
from edge_agent.errors import RefusedSampleError
from edge_agent.samples import Sample, check_plausible
from edge_agent.saved_trip_check import misfit
from edge_agent.stamps import Stamp
from edge_agent.trip_signals import TripSignals
from edge_agent.trip_state import SAVED_ROWS, Saved, packed_rows

FloatArray = npt.NDArray[np.float64]

BUFFER_ROWS = 4096
GLITCH_SAMPLES = 3  # that contradict an odometer before it is believed no more
Z95 = 1.959963984540054
NOTHING: Final[Mapping[str, Derived]] = MappingProxyType({})


@dataclass(frozen=True)
class Twin:
    """What predicts: the model, its manifest, and the estimate in force with its number.

    While that is on trial, `confirmed` is what it falls back to. `provisional` above 0: that step
    which the vehicle itself has made on the revision.
    """

    manifest: Manifest
    model: VoltageModel
    estimate: Estimate
    revision: int
    settings: Settings
    confirmed: Twin | None = None
    provisional: int = 0


@dataclass(frozen=True)
class TripResult:
    """A finished trip. Errors in volts; `trace` thinned; `coverage95` the share inside the band.

    `started` is the stamp of our own clock; None where the source told the time.
    """

    trip_id: str
    revision: int
    started_at: float
    duration_s: float
    odometer_start: float
    odometer_end: float
    samples: int
    refused_samples: int
    error_v: float
    band95_v: float
    coverage95: float
    feature_means: list[float]
    trace: TraceArrays
    partial: bool
    beside: Beside | None = None
    started: Stamp | None = None
    provisional: int = 0


class TripMonitor:
    """One trip in progress. The parameters in force at its start stay in force to its end."""

    def __init__(
        self,
        trip_id: str,
        first: Sample,
        twin: Twin,
        trace_points: int,
        derived: Mapping[str, Derived] = NOTHING,
    ) -> None:
        self.trip_id = trip_id
        self.odometer_start = first.odometer
        self.samples = 0
        self.refused = 0
        self.last_prediction_v: float | None = None
        self._twin = twin
        self._trace_points = trace_points
        self._estimate = twin.estimate
        self._canary = _canary(twin)
        self._features = FeatureBuilder(twin.manifest)
        self._signals = TripSignals(derived)
        self.started_at = first.time_s
        self._last_time_s = -np.inf
        self._odometer = first.odometer
        self._behind = 0
        self._absolute_error = 0.0
        self._feature_sums = np.zeros(len(twin.manifest.features))
        self._buffer = _Buffer(len(twin.manifest.features))

    def add(self, sample: Sample) -> float:
        """Predict one sample, compare; the absolute error in volts. Raises RefusedSampleError."""
        try:
            row = self._checked_row(sample)
        except RefusedSampleError:
            self.refused += 1
            raise
        if self.samples == 0:
            self._align(row, sample.voltage_v)
        if self._canary is not None:
            self._canary.add(row, sample.voltage_v)
        prediction = self._twin.model.predict_one(row, self._estimate.theta)
        error = abs(prediction - sample.voltage_v)
        self.samples += 1
        self.last_prediction_v = prediction
        self._absolute_error += error
        self._feature_sums += row
        self._features.take(sample.time_s, row)
        self._signals.take(sample)
        self._last_time_s, self._odometer = sample.time_s, sample.odometer
        self._buffer.add(sample.time_s - self.started_at, row, sample.voltage_v)
        return error

    def finish(self, *, partial: bool = False) -> TripResult:
        """The result of the trip; call it once, after at least two samples."""
        trace = thin(self._buffer.arrays(), self._trace_points)
        predicted, std = calibration.voltage_band(
            self._estimate,
            trace.features,
            self._twin.model,
            self._twin.manifest,
            self._twin.settings,
        )
        inside = np.abs(predicted - trace.voltage_v) <= Z95 * std
        error_v = self._absolute_error / self.samples
        beside = None
        if self._canary is not None and not partial:
            beside = self._canary.result(self._twin.revision, error_v)
        return TripResult(
            trip_id=self.trip_id,
            revision=self._twin.revision,
            started_at=self.started_at,
            duration_s=self._last_time_s - self.started_at,
            odometer_start=self.odometer_start,
            odometer_end=self._odometer,
            samples=self.samples,
            refused_samples=self.refused,
            error_v=error_v,
            band95_v=float(Z95 * std.mean()),
            coverage95=float(inside.mean()),
            feature_means=(self._feature_sums / self.samples).tolist(),
            trace=trace,
            partial=partial,
            beside=beside,
            provisional=self._twin.provisional,
        )

    def saved(self, bundle: str, *, is_named: bool) -> Saved:
        """What `restored` needs; after at least one sample."""
        estimate, buffer = self._estimate, self._buffer
        grown, own = estimate.growth, estimate.discrepancy
        rows, stride = buffer.halved_to(SAVED_ROWS)
        return Saved(
            trip_id=self.trip_id,
            is_named=is_named,
            bundle=bundle,
            revision=self._twin.revision,
            started_at=self.started_at,
            odometer_start=self.odometer_start,
            odometer=self._odometer,
            samples=self.samples,
            refused=self.refused,
            absolute_error=self._absolute_error,
            theta=estimate.theta.tolist(),
            rate=estimate.rate.tolist(),
            covariance=estimate.covariance.ravel().tolist(),
            estimate_odometer=estimate.odometer,
            growth=None if grown is None else grown.tolist(),
            discrepancy=None if own is None else (own.std_v, own.trips),
            feature_sums=self._feature_sums.tolist(),
            signals=self._signals.saved(),
            last=buffer.last,
            rows=packed_rows(rows),
            stride=stride,
            seen=buffer.seen,
            provisional=self._twin.provisional,
        )

    @classmethod
    def restored(
        cls, saved: Saved, twin: Twin, trace_points: int, derived: Mapping[str, Derived] = NOTHING
    ) -> TripMonitor:
        """The trip goes on with the parameters that it began with.

        Raises ValueError when it does not fit the twin, or what is derived now.
        """
        if len(saved.last) != len(twin.manifest.features) + 2:
            raise ValueError("it has other features than the bundle")
        if (problem := misfit(saved, twin.manifest)) is not None:
            raise ValueError(problem)
        # A trial waits for a trip that is seen whole.
        own = replace(twin, revision=saved.revision, confirmed=None, provisional=saved.provisional)
        first = Sample(saved.started_at, saved.odometer_start, {}, 0.0)
        monitor = cls(saved.trip_id, first, own, trace_points, derived)
        monitor._estimate = saved.estimate()
        monitor.samples, monitor.refused = saved.samples, saved.refused
        monitor._absolute_error = saved.absolute_error
        monitor._feature_sums = np.array(saved.feature_sums)
        monitor._last_time_s, monitor._odometer = saved.last_time_s, saved.odometer
        monitor._features.take(saved.last_time_s, saved.last[1:-1])
        monitor._signals.restore(saved.signals)
        monitor._buffer.restore(saved.table(), saved.last, saved.stride, saved.seen)
        return monitor

    def _align(self, row: list[float], voltage_v: float) -> None:
        """What this trip alone brings is read off its first sample; then the parameters stay."""
        twin = self._twin
        at_start = calibration.extrapolate(twin.estimate, twin.manifest, self.odometer_start)
        first = np.array(row)
        self._estimate = calibration.align(at_start, first, voltage_v, twin.model, twin.manifest)
        if self._canary is not None:
            self._canary.begin(self.odometer_start, first, voltage_v)

    def _is_glitch_over(self, sample: Sample) -> bool:
        """Whether it was one sample that ran ahead, and not those after it that run backwards."""
        self._behind += 1
        return self._behind > GLITCH_SAMPLES and sample.odometer >= self.odometer_start

    def _checked_row(self, sample: Sample) -> list[float]:
        if not sample.time_s > self._last_time_s:
            raise RefusedSampleError("its time does not follow the sample before")
        if sample.odometer < self._odometer and not self._is_glitch_over(sample):
            raise RefusedSampleError("its odometer runs backwards")
        self._behind = 0
        try:
            row = self._features.candidate_row(sample.time_s, self._signals.candidate(sample))
        except MissingSignalError as error:
            raise RefusedSampleError(str(error)) from error
        check_plausible(row, sample, self._twin.manifest)
        return row


def _canary(twin: Twin) -> Canary | None:
    if twin.confirmed is None:
        return None
    return Canary(twin.confirmed.estimate, twin.model, twin.manifest)


class _Buffer:
    """Rows of a trip in bounded memory: when full, every other row goes and the stride doubles."""

    def __init__(self, features: int) -> None:
        self._rows = np.empty((BUFFER_ROWS, features + 2))
        self._count = 0
        self.seen = 0
        self._stride = 1
        self.last: list[float] = []

    def add(self, time_s: float, row: list[float], voltage_v: float) -> None:
        self.last = [time_s, *row, voltage_v]
        if self.seen % self._stride == 0:
            if self._count == BUFFER_ROWS:
                self._halve()
            if self.seen % self._stride == 0:
                self._rows[self._count] = self.last
                self._count += 1
        self.seen += 1

    def arrays(self) -> TraceArrays:
        rows = self._rows[: self._count]
        if rows[-1, 0] != self.last[0]:
            rows = np.vstack([rows, self.last])
        return TraceArrays(rows[:, 0].copy(), rows[:, 1:-1].copy(), rows[:, -1].copy())

    def halved_to(self, most: int) -> tuple[FloatArray, int]:
        """The rows with as many as fit into `most`, and their stride; nothing changes."""
        rows, stride = self._rows[: self._count], self._stride
        while len(rows) > most:
            rows, stride = rows[::2], 2 * stride
        return rows, stride

    def restore(self, rows: FloatArray, last: list[float], stride: int, seen: int) -> None:
        """Go on from these."""
        self._rows[: len(rows)] = rows
        self._count, self._stride, self.seen, self.last = len(rows), stride, seen, list(last)

    def _halve(self) -> None:
        kept = self._rows[::2].copy()
        self._rows[: len(kept)] = kept
        self._count = len(kept)
        self._stride *= 2
