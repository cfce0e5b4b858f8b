"""What a list of vehicles is sorted and judged by, written into the vehicle when its revision is.

Pure but for the rows that it is given. Must never sample: health's standard deviation is linear
here, a column to sort and filter by; `/health` gives the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.store.assessed import Assessed
from cloud.store.tables import Vehicle
from common.batch import batch_of, estimates_of, extrapolated
from common.cutoff import first_crossing
from common.estimate import Estimate, estimate_of
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
        vehicle.error_left = _error_left(revision, manifest)


def _error_left(revision: Revision, manifest: Manifest) -> float | None:
    if revision.cause.kind != "breach":
        return None
    return revision.cause.error_after_v / manifest.error_threshold_v


def _healths(
    estimates: Sequence[Estimate], model: VoltageModel, manifest: Manifest
) -> list[tuple[float | None, float | None, float | None]]:
    """(state of health, its standard deviation, its loss over the next AHEAD units) of each."""
    new = usable_when_new(model, manifest)
    if manifest.health is None or new is None:
        return [(None, None, None)] * len(estimates)
    batch = batch_of(estimates, manifest)
    ahead = extrapolated(batch, batch.odometer + AHEAD, manifest)
    later = estimates_of(ahead, estimates, manifest)
    points = [_points(*both) for both in zip(estimates, later, strict=True)]
    rows, each = np.concatenate(points), len(points[0])
    offsets = np.zeros((len(points), each))
    offsets[:, -2:] = [[_discrepancy_v(e, manifest) * s for s in (1, -1)] for e in estimates]
    crossings = first_crossing(rows, manifest.health, model, manifest, offsets.ravel()) / new
    return [
        _figures(estimate, found)
        for estimate, found in zip(estimates, crossings.reshape(-1, each), strict=True)
    ]


def _points(estimate: Estimate, later: Estimate) -> FloatArray:
    """theta here, later, one standard deviation up and down in each parameter, and twice again."""
    steps = np.diag(_stds(estimate))
    theta = estimate.theta
    return np.vstack([theta, later.theta, theta + steps, theta - steps, theta, theta])


def _figures(
    estimate: Estimate, found: FloatArray
) -> tuple[float | None, float | None, float | None]:
    """Linear: var(h) = g' P g + the share of the model's discrepancy, g by central differences."""
    count, stds = len(estimate.theta), _stds(estimate)
    up, down = found[2 : 2 + count], found[2 + count : 2 + 2 * count]
    with np.errstate(invalid="ignore"):  # infinite: beyond the bundle's sweep
        g = np.divide(up - down, 2 * stds, out=np.zeros(count), where=stds > 0)
        variance = g @ estimate.covariance[:count, :count] @ g + ((found[-2] - found[-1]) / 2) ** 2
        figures = (found[0], np.sqrt(variance), found[0] - found[1])
    value, std, drift = (float(one) if np.isfinite(one) else None for one in figures)
    return value, std, drift


def _stds(estimate: Estimate) -> FloatArray:
    count = len(estimate.theta)
    return np.asarray(np.sqrt(np.maximum(np.diag(estimate.covariance)[:count], 0.0)))


def _discrepancy_v(estimate: Estimate, manifest: Manifest) -> float:
    own = estimate.discrepancy
    return own.std_v if own is not None else manifest.model_discrepancy_std_v
