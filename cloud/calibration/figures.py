"""What a list of vehicles is sorted and judged by, written into the vehicle when its revision is.

Pure but for the rows that it is given. Must never sample: health's standard deviation is linear
here, a column to sort and filter by; `/health` gives the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.store import evidence
from cloud.store.assessed import Assessed
from cloud.store.tables import Vehicle
from common.batch import batch_of, extrapolated
from common.cutoff import first_crossing
from common.estimate import Estimate, bounded_theta, estimate_of
from common.estimate_state import relative_std
from common.health import usable_when_new
from common.manifest import Manifest
from common.model import VoltageModel
from common.revision import Revision

FloatArray = npt.NDArray[np.float64]

AHEAD: Final = 1000.0
"""Odometer units over which drift is told."""


def note(
    made: Sequence[tuple[Vehicle | Assessed, Revision]], model: VoltageModel, manifest: Manifest
) -> None:
    """Write the figures of these revisions, all of one bundle, into their vehicles."""
    if not made:
        return
    estimates = [estimate_of(revision) for _, revision in made]
    health = _healths(estimates, model, manifest)
    stds = np.array([parameter.prior_std for parameter in manifest.parameters])
    for (vehicle, revision), estimate, found in zip(made, estimates, health, strict=True):
        vehicle.soh, vehicle.soh_std, vehicle.drift = found
        vehicle.figures_revision = revision.number
        vehicle.relative_std = relative_std(estimate.covariance, stds)
        vehicle.error_left = evidence.error_left(revision, manifest)


def _healths(
    estimates: Sequence[Estimate], model: VoltageModel, manifest: Manifest
) -> list[tuple[float | None, float | None, float | None]]:
    """(state of health, its standard deviation, its loss over the next AHEAD units) of each.

    Linear: var(h) = g' P g + the share of the model's discrepancy, g by central differences.
    """
    new = usable_when_new(model, manifest)
    if manifest.health is None or new is None:
        return [(None, None, None)] * len(estimates)
    theta = np.array([estimate.theta for estimate in estimates])
    batch, count = batch_of(estimates, manifest), theta.shape[1]
    later = extrapolated(batch, batch.odometer + AHEAD, manifest).x[:, :count]
    P = np.array([estimate.covariance[:count, :count] for estimate in estimates])
    stds = np.sqrt(np.maximum(np.diagonal(P, axis1=1, axis2=2), 0.0))
    points = _points(theta, bounded_theta(later, manifest), stds)
    offsets = np.zeros(points.shape[:2])
    offsets[:, -2], offsets[:, -1] = batch.discrepancy_v, -batch.discrepancy_v
    crossings = first_crossing(
        points.reshape(-1, count), manifest.health, model, manifest, offsets.ravel()
    )
    found = (crossings / new).reshape(offsets.shape)
    up, down = found[:, 2 : 2 + count], found[:, 2 + count : 2 + 2 * count]
    with np.errstate(invalid="ignore"):  # infinite: beyond the bundle's sweep
        g = np.divide(up - down, 2 * stds, out=np.zeros_like(stds), where=stds > 0)
        own = (g[:, None] @ P @ g[:, :, None])[:, 0, 0]
        std = np.sqrt(own + ((found[:, -2] - found[:, -1]) / 2) ** 2)
        figures = np.column_stack([found[:, 0], std, found[:, 0] - found[:, 1]])
    return [
        (_finite(one), _finite(spread), _finite(loss)) for one, spread, loss in figures.tolist()
    ]


def _points(theta: FloatArray, later: FloatArray, stds: FloatArray) -> FloatArray:
    """theta here, later, one standard deviation up and down in each parameter, and twice again.

    Each argument is [B, P], the result [B, 2P + 4, P].
    """
    here, steps = theta[:, None], stds[:, :, None] * np.eye(theta.shape[1])
    return np.concatenate([here, later[:, None], here + steps, here - steps, here, here], axis=1)


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
