"""What one trip brings of its own: align the parameters of a trip with its first samples.

A car does not always start fully charged, and a cold battery is another battery. The manifest says
how much a parameter varies from trip to trip (`trip_std`); the first voltage says how much of that
is there today. It is one extended Kalman update of the trip's parameters, which are forgotten when
the trip ends. A bundle without `trip_std` predicts as it always did: what drifts then is the
battery, and that is for revisions to say.

Pure. Must never change what is known of the battery.
"""

from __future__ import annotations

from dataclasses import replace
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
    x, P = trip.x, trip.P
    std = np.sqrt(np.diagonal(P, axis1=1, axis2=2)[:, :count])
    k = voltage_v.shape[1]
    R = point_variance(manifest.measurement_noise_std_v, trip.discrepancy_v)[:, None, None] * np.eye(k)
    y, H, gain = x.copy(), np.zeros((len(x), k, 2 * count)), np.zeros((len(x), 2 * count, k))
    moving = np.arange(len(x))
    for _ in range(PASSES):
        before, cross = y[moving], P[moving]
        here, predicted = _slopes(before, std[moving], features[moving], model, manifest)
        cross = cross @ here.swapaxes(-1, -2)
        S = here @ cross + R[moving]
        reach = BELIEVED_STDS * np.sqrt(np.diagonal(S, axis1=1, axis2=2))
        innovation = voltage_v[moving] - predicted + _times(here, before - x[moving])
        H[moving], gain[moving] = here, cross @ np.linalg.inv(S)
        y[moving] = x[moving] + _times(gain[moving], np.clip(innovation, -reach, reach))
        moved = np.abs(y[moving] - before)[:, :count] > SETTLED * std[moving]
        moving = moving[moved.any(axis=1)]
        if not len(moving):
            break
    # Joseph's form: P stays positive semidefinite whatever the rounding.
    reduced = np.eye(2 * count) - gain @ H
    after = reduced @ P @ reduced.swapaxes(-1, -2) + gain @ R @ gain.swapaxes(-1, -2)
    return replace(trip, x=y, P=0.5 * (after + after.swapaxes(-1, -2)))


def aligned_errors(
    batch: Batch,
    features: FloatArray,
    voltage_v: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> FloatArray:
    """Mean absolute errors [B] on traces [B, m], aligned with their first points."""
    trip = aligned(batch, features[:, :POINTS], voltage_v[:, :POINTS], model, manifest)
    layout = layout_of(manifest)
    theta = layout.bounds.bounded(trip.x[:, None, : layout.count])
    predicted = model.predict_crossed(features, theta)[:, 0]
    return np.asarray(np.abs(predicted - voltage_v).mean(axis=1))


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
    """dV/dx [B, k, 2P] by central differences about free states y [B, 2P], and the voltage [B, k].

    Along the rates a trip stands still.
    """
    bounds, count = layout_of(manifest).bounds, std.shape[1]
    steps = STEP * std[:, :, None] * np.eye(count)
    centre = y[:, None, :count]
    points = np.concatenate([centre, centre + steps, centre - steps], axis=1)
    voltages = model.predict_crossed(features, bounds.bounded(points))
    change = (voltages[:, 1 : count + 1] - voltages[:, count + 1 :]) / (2 * STEP * std[:, :, None])
    H = np.zeros((*voltages.shape[::2], 2 * count))
    H[:, :, :count] = change.swapaxes(-1, -2)
    return H, voltages[:, 0]


def _times(A: FloatArray, v: FloatArray) -> FloatArray:
    """A v for matrices A [B, i, j] and vectors v [B, j]."""
    product: FloatArray = (A @ v[..., None])[..., 0]
    return product
