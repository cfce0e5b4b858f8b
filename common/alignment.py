"""What one trip brings of its own: align the parameters of a trip with its first samples.

A car does not always start fully charged, and a cold battery is another battery. The manifest says
how much a parameter varies from trip to trip (`trip_std`); the first voltage says how much of that
is there today. It is one extended Kalman update of the trip's parameters, which are forgotten when
the trip ends. A bundle without `trip_std` predicts as it always did: what drifts then is the
battery, and that is for revisions to say.

Pure. Must never change what is known of the battery.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from common.batch import Batch, batch_of, estimates_of, with_trip_variances
from common.discrepancy import point_variance
from common.estimate import Estimate
from common.layout import layout_of
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

POINTS: Final = 1  # of a trace: as many first samples align a trip
PASSES: Final = 3
# A first sample farther off than this many standard deviations is believed only so far.
BELIEVED_STDS: Final = 2.5
SETTLED: Final = 0.01  # of a standard deviation between passes: another brings nothing
STEP: Final = 0.2  # of a standard deviation, for the central differences


def aligned(
    batch: Batch,
    features: FloatArray,
    voltage_v: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> Batch:
    """The parameters of B trips whose k first samples are features [B, k, F] and voltage [B, k].

    `batch` are the batteries at the trips' starts (extrapolated). All k samples are one update; a
    trip that has settled stays, so that in company it ends as alone.
    """
    layout = layout_of(manifest)
    if not layout.has_trip_spread:
        return batch
    trip, count = with_trip_variances(batch, manifest), layout.count
    R = _noise(trip, voltage_v, manifest)
    found = _update(trip, R, features, voltage_v, model, manifest)
    reduced = np.tile(np.eye(2 * count), (len(trip.x), 1, 1))
    reduced[:, :, :count] -= found.gain @ found.H
    # Joseph's form: P stays positive semidefinite whatever the rounding.
    own = found.gain @ R @ found.gain.swapaxes(-1, -2)
    P = reduced @ trip.P @ reduced.swapaxes(-1, -2) + own
    return replace(trip, x=found.y, P=0.5 * (P + P.swapaxes(-1, -2)))


@dataclass(frozen=True)
class _Update:
    """States y [B, 2P] by slopes H [B, k, P] and gain [B, 2P, k]."""

    y: FloatArray
    H: FloatArray
    gain: FloatArray

    def where(self, moving: BoolArray, other: _Update) -> _Update:
        """The other's for the moving ones [B, 1, 1]."""
        if moving.all():
            return other
        return _Update(
            np.where(moving[:, 0], other.y, self.y),
            np.where(moving, other.H, self.H),
            np.where(moving, other.gain, self.gain),
        )


def _noise(trip: Batch, voltage_v: FloatArray, manifest: Manifest) -> FloatArray:
    """R [B, k, k] of the first k samples."""
    variance = point_variance(manifest.measurement_noise_std_v, trip.discrepancy_v)
    return variance[:, None, None] * np.eye(voltage_v.shape[1])


def _update(
    trip: Batch,
    R: FloatArray,
    features: FloatArray,
    voltage_v: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> _Update:
    """All k samples at once, linearised again where that moves a trip's parameters."""
    x, count = trip.x, layout_of(manifest).count
    P_theta = trip.P[:, :, :count]
    std = np.sqrt(np.diagonal(P_theta, axis1=1, axis2=2))
    found = _Update(x, np.zeros(1), np.zeros(1))
    moving = np.ones((len(x), 1, 1), dtype=bool)
    for _ in range(PASSES):
        H, predicted = _slopes(found.y, std, features, model, manifest)
        cross = P_theta @ H.swapaxes(-1, -2)
        S = H @ cross[:, :count] + R
        reach: FloatArray = BELIEVED_STDS * np.sqrt(np.diagonal(S, axis1=1, axis2=2))
        innovation = voltage_v - predicted + _times(H, (found.y - x)[:, :count])
        weight: FloatArray = np.linalg.inv(S)
        gain = cross @ weight
        believed: FloatArray = np.minimum(np.maximum(innovation, -reach), reach)
        before, found = found, found.where(moving, _Update(x + _times(gain, believed), H, gain))
        moved = np.abs(found.y - before.y)[:, :count] > SETTLED * std
        moving = moved.any(axis=1)[:, None, None]
        if not moving.any():
            break
    return found


def aligned_errors(
    batch: Batch,
    features: FloatArray,
    voltage_v: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> FloatArray:
    """Mean absolute errors [B] on traces [B, m], aligned with their first points."""
    layout, states = layout_of(manifest), batch.x
    if layout.has_trip_spread:
        trip, first_v = with_trip_variances(batch, manifest), voltage_v[:, :POINTS]
        R = _noise(trip, first_v, manifest)
        states = _update(trip, R, features[:, :POINTS], first_v, model, manifest).y
    theta = layout.bounds.bounded(states[:, None, : layout.count])
    predicted = model.predict_crossed(features, theta)[:, 0]
    return np.asarray(np.abs(predicted - voltage_v).sum(axis=1) / voltage_v.shape[1])


def align(
    estimate: Estimate,
    features: FloatArray,
    voltage_v: float,
    model: VoltageModel,
    manifest: Manifest,
) -> Estimate:
    """The parameters of a trip that begins at `features` [F] with `voltage_v`, with their spread.

    `estimate` is the battery's at the trip's start (extrapolated). The result holds for this trip
    alone.
    """
    if not layout_of(manifest).has_trip_spread:
        return estimate
    first = features[None, None], np.array([[voltage_v]])
    trip = aligned(batch_of([estimate], manifest), *first, model, manifest)
    return estimates_of(trip, [estimate], manifest)[0]


def aligned_error_v(
    estimate: Estimate, trace: TraceArrays, model: VoltageModel, manifest: Manifest
) -> float:
    """Mean absolute error on a trace of the estimate at its odometer, aligned with its start."""
    whole = trace.features[None], trace.voltage_v[None]
    return float(aligned_errors(batch_of([estimate], manifest), *whole, model, manifest)[0])


def _slopes(
    y: FloatArray, std: FloatArray, features: FloatArray, model: VoltageModel, manifest: Manifest
) -> tuple[FloatArray, FloatArray]:
    """dV/dtheta [B, k, P] by central differences about states y [B, 2P], and voltage [B, k]."""
    bounds, count = layout_of(manifest).bounds, std.shape[1]
    steps = STEP * std[:, :, None] * np.eye(count)
    centre = y[:, None, :count]
    points = np.concatenate([centre, centre + steps, centre - steps], axis=1)
    voltages = model.predict_crossed(features, bounds.bounded(points))
    change = voltages[:, 1 : count + 1] - voltages[:, count + 1 :]
    # A parameter that nobody doubts takes no step, and nothing of the innovation either.
    slopes = change / np.where(std > 0.0, 2 * STEP * std, 1.0)[:, :, None]
    return slopes.swapaxes(-1, -2), voltages[:, 0]


def _times(A: FloatArray, v: FloatArray) -> FloatArray:
    """A v for matrices A [B, i, j] and vectors v [B, j]."""
    product: FloatArray = (A @ v[..., None])[..., 0]
    return product
