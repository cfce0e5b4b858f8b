"""What theta should have been: the parameters that fit a trip without noise best.

The published battery is not the model, so it has no theta of its own; its truth is defined as the
least-squares fit of the bundle's model to every sample of the noise-free trip (Gauss-Newton from
the trip before, halved until it improves). Pure but for the model call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Trip
from bench.science.methods.common_ground import jacobian
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

STEPS = 20
HALVINGS = 6
SETTLED = 1e-5


def true_thetas(trips: Sequence[Trip], model: VoltageModel, manifest: Manifest) -> FloatArray:
    """theta [T, P] of every trip of one vehicle."""
    theta = np.array([p.nominal for p in manifest.parameters])
    found = []
    for trip in trips:
        if trip.voltage_true_v is None:
            raise ValueError(f"trip {trip.trip_id} has no voltage without noise to fit")
        theta = best_fit(theta, trip.whole.features, trip.voltage_true_v, model, manifest)
        found.append(theta)
    return np.array(found)


def best_fit(
    start: FloatArray,
    features: FloatArray,
    voltage_v: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> FloatArray:
    """The least-squares theta [P] near `start`."""
    theta = start
    for _ in range(STEPS):
        predicted, slopes = jacobian(theta, features, model, manifest)
        step = np.linalg.lstsq(slopes, voltage_v - predicted, rcond=None)[0]
        now = ((voltage_v - predicted) ** 2).sum()
        shares = 0.5 ** np.arange(HALVINGS)
        tried = theta + shares[:, None] * step
        images = model.predict_crossed(features[None], tried[None])[0]
        better = np.flatnonzero(((images - voltage_v) ** 2).sum(axis=1) < now)
        if not len(better):
            break
        moved = tried[better[0]] - theta
        theta = tried[better[0]]
        if np.abs(moved).max() < SETTLED:
            break
    return theta
