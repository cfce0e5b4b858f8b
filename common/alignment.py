"""What one trip brings of its own: align the parameters of a trip with its first sample.

A car does not always start fully charged, and a cold battery is another battery. The manifest says
how much a parameter varies from trip to trip (`trip_std`); the first voltage says how much of that
is there today. It is one extended Kalman update of the trip's parameters, which are forgotten when
the trip ends. A bundle without `trip_std` predicts as it always did: what drifts then is the
battery, and that is for revisions to say.

Pure. Must never change what is known of the battery.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.estimate import (
    Estimate,
    bounded_theta,
    discrepancy_of,
    free_states,
    from_free_states,
    trip_variances,
    with_trip_spread,
)
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]

PASSES: Final = 3
# A first sample farther off than this many standard deviations is believed only so far.
BELIEVED_STDS: Final = 2.5
SETTLED: Final = 0.01  # of a standard deviation between passes: another brings nothing
STEP: Final = 0.2  # of a standard deviation, for the central differences


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
    spread = with_trip_spread(estimate, manifest)
    own = trip_variances(manifest)
    if not own.any():
        return spread
    (x,), (P,) = free_states([spread], manifest)
    noise = manifest.measurement_noise_std_v**2 + discrepancy_of(estimate, manifest).std_v ** 2
    y = x
    count = len(own)
    std = np.sqrt(np.diagonal(P)[:count])
    for _ in range(PASSES):
        H, predicted = _slope(y, std, features, model, manifest)
        S = float(H @ P[:count, :count] @ H) + noise
        innovation = voltage_v - predicted + float(H @ (y - x)[:count])
        innovation = float(np.clip(innovation, *(BELIEVED_STDS * np.sqrt(S) * np.array([-1, 1]))))
        gain = P[:, :count] @ H / S
        before, y = y, x + gain * innovation
        if (np.abs(y - before)[:count] <= SETTLED * std).all():
            break
    reduced = np.eye(2 * count) - np.outer(gain, np.concatenate([H, np.zeros(count)]))
    # Joseph's form: P stays positive semidefinite whatever the rounding.
    P = reduced @ P @ reduced.T + noise * np.outer(gain, gain)
    return from_free_states(y, 0.5 * (P + P.T), manifest, spread)


def aligned_error_v(
    estimate: Estimate, trace: TraceArrays, model: VoltageModel, manifest: Manifest
) -> float:
    """Mean absolute error on a trace of the estimate at its odometer, aligned with its start."""
    theta = align(estimate, trace.features[0], float(trace.voltage_v[0]), model, manifest).theta
    return float(np.abs(model.predict(trace.features, theta) - trace.voltage_v).mean())


def _slope(
    y: FloatArray, std: FloatArray, features: FloatArray, model: VoltageModel, manifest: Manifest
) -> tuple[FloatArray, float]:
    """dV/dtheta [P] by central differences about free numbers y [2P], and the voltage there."""
    count = len(std)
    steps = STEP * np.diag(std)
    points = np.concatenate([y[None, :count], y[:count] + steps, y[:count] - steps])
    voltages = model.predict(np.tile(features, (len(points), 1)), bounded_theta(points, manifest))
    up, down = voltages[1 : count + 1], voltages[count + 1 :]
    return (up - down) / (2 * STEP * std), float(voltages[0])
