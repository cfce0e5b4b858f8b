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
from common.trip_band import Z95, TripBand
from edge_agent.config import Derived
from edge_agent.errors import RefusedSampleError
from edge_agent.parameters.canary import Canary
from edge_agent.samples import Sample, check_plausible
from edge_agent.trips.saved_trip_check import misfit
from edge_agent.trips.trip_record import VALUES, TripRecord
from edge_agent.trips.trip_signals import TripSignals
from edge_agent.trips.trip_state import SAVED_BUCKETS, Saved, packed
from edge_agent.trips.trip_values import Compared, TripResult, TripSoFar

FloatArray = npt.NDArray[np.float64]

SHORTEST_STEP_S = 2e-6  # what a trace on the wire can tell apart
GLITCH_SAMPLES = 3  # that contradict an odometer before it is believed no more
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
        self.newest: Compared | None = None
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
        self._absolute_error = self._band_sum = 0.0
        self._covered = 0
        self._feature_sums = np.zeros(len(twin.manifest.features))
        self._record = TripRecord(len(twin.manifest.features))
        self._band: TripBand | None = None

    def add(self, sample: Sample) -> Compared:
        """Predict one sample, and compare. Raises RefusedSampleError."""
        try:
            row = self._checked_row(sample)
        except RefusedSampleError:
            self.refused += 1
            raise
        if self.samples == 0:  # what was refused before it is no beginning
            self.started_at, self.odometer_start = sample.time_s, sample.odometer
        if self._band is None:
            self._align(row, sample.voltage_v)
            self._band = self._band_of_trip()
        if self._canary is not None:
            self._canary.add(row, sample.voltage_v)
        predicted_v, std_v = self._band.at(row)
        found = Compared(row, predicted_v, Z95 * std_v, sample.voltage_v)
        self.newest, error_v = found, found.error_v
        self.samples += 1
        self._absolute_error += error_v
        self._band_sum += found.band95_v
        self._covered += error_v <= found.band95_v
        self._feature_sums += row
        self._features.take(sample.time_s, row)
        self._signals.take(sample)
        self._last_time_s, self._odometer = sample.time_s, sample.odometer
        after_s = sample.time_s - self.started_at
        self._record.add(after_s, row, sample.voltage_v, error_v)
        return found

    @property
    def error_v(self) -> float:
        """Mean absolute error over the samples so far; after at least one."""
        return self._absolute_error / self.samples

    def so_far(self) -> TripSoFar | None:
        """The trip as it stands; None before the first sample (or the first after a restart)."""
        if self.newest is None:
            return None
        return TripSoFar(
            trip_id=self.trip_id,
            revision=self._twin.revision,
            started_at=self.started_at,
            odometer=self._odometer,
            samples=self.samples,
            refused_samples=self.refused,
            error_v=self.error_v,
            coverage95=self._covered / self.samples,
            newest=self.newest,
            feature_means=(self._feature_sums / self.samples).tolist(),
            estimate=self._estimate,
        )

    def finish(self, *, partial: bool = False) -> TripResult:
        """The result of the trip; call it once, after at least two samples."""
        beside = None
        if self._canary is not None and not partial:
            beside = self._canary.result(self._twin.revision, self.error_v)
        return TripResult(
            trip_id=self.trip_id,
            revision=self._twin.revision,
            started_at=self.started_at,
            duration_s=self._last_time_s - self.started_at,
            odometer_start=self.odometer_start,
            odometer_end=self._odometer,
            samples=self.samples,
            refused_samples=self.refused,
            error_v=self.error_v,
            band95_v=self._band_sum / self.samples,
            coverage95=self._covered / self.samples,
            feature_means=(self._feature_sums / self.samples).tolist(),
            thinned=self._record.thinned(self._trace_points),
            partial=partial,
            beside=beside,
            provisional=self._twin.provisional,
        )

    def saved(self, bundle: str, *, is_named: bool) -> Saved:
        """What `restored` needs; after at least one sample."""
        estimate = self._estimate
        grown, own = estimate.growth, estimate.discrepancy
        table, stride = self._record.saved(SAVED_BUCKETS)
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
            covered=self._covered,
            band_sum=self._band_sum,
            theta=estimate.theta.tolist(),
            rate=estimate.rate.tolist(),
            covariance=estimate.covariance.ravel().tolist(),
            estimate_odometer=estimate.odometer,
            growth=None if grown is None else grown.tolist(),
            discrepancy=None if own is None else (own.std_v, own.trips),
            feature_sums=self._feature_sums.tolist(),
            signals=self._signals.saved(),
            last=self._record.last,
            record=packed(table),
            stride=stride,
            provisional=self._twin.provisional,
        )

    @classmethod
    def restored(
        cls, saved: Saved, twin: Twin, trace_points: int, derived: Mapping[str, Derived] = NOTHING
    ) -> TripMonitor:
        """The trip goes on with the parameters that it began with.

        Raises ValueError when it does not fit the twin, or what is derived now.
        """
        if (problem := misfit(saved, twin.manifest)) is not None:
            raise ValueError(problem)
        # A trial waits for a trip that is seen whole.
        own = replace(twin, revision=saved.revision, confirmed=None, provisional=saved.provisional)
        first = Sample(saved.started_at, saved.odometer_start, {}, 0.0)
        monitor = cls(saved.trip_id, first, own, trace_points, derived)
        monitor._estimate = saved.estimate()
        monitor._band = monitor._band_of_trip()
        monitor.samples, monitor.refused = saved.samples, saved.refused
        monitor._absolute_error, monitor._band_sum = saved.absolute_error, saved.band_sum
        monitor._covered = saved.covered
        monitor._feature_sums = np.array(saved.feature_sums)
        monitor._last_time_s, monitor._odometer = saved.last_time_s, saved.odometer
        monitor._features.take(saved.last_time_s, saved.last[VALUES][:-1])
        monitor._signals.restore(saved.signals)
        monitor._record.restore(saved.table(), saved.last, saved.stride)
        return monitor

    def _align(self, row: list[float], voltage_v: float) -> None:
        """What this trip alone brings is read off its first sample; then the parameters stay."""
        twin = self._twin
        at_start = calibration.extrapolate(twin.estimate, twin.manifest, self.odometer_start)
        first = np.array(row)
        self._estimate = calibration.align(at_start, first, voltage_v, twin.model, twin.manifest)
        if self._canary is not None:
            self._canary.begin(self.odometer_start, first, voltage_v)

    def _band_of_trip(self) -> TripBand:
        twin = self._twin
        return TripBand(self._estimate, twin.model, twin.manifest, twin.settings)

    def _is_glitch_over(self, sample: Sample) -> bool:
        """Whether it was one sample that ran ahead, and not those after it that run backwards."""
        self._behind += 1
        return self._behind > GLITCH_SAMPLES and sample.odometer >= self.odometer_start

    def _checked_row(self, sample: Sample) -> list[float]:
        if not sample.time_s - self._last_time_s >= SHORTEST_STEP_S:
            raise RefusedSampleError("its time does not follow the sample before")
        is_behind = self.samples > 0 and sample.odometer < self._odometer
        if is_behind and not self._is_glitch_over(sample):
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
