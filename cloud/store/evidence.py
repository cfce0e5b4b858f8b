"""Collect what the state of a vehicle's estimate is judged on.

Pure. Must never judge: that is `common.estimate_state`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.store.assessed import Assessed
from cloud.store.tables import Vehicle
from common import calibration
from common.batch import batch_of, estimates_of, extrapolated
from common.calibration import Estimate
from common.estimate_state import Evidence, relative_std
from common.manifest import Manifest
from common.revision import Revision


def estimate_at(revision: Revision | None, manifest: Manifest, odometer: float | None) -> Estimate:
    """The estimate of a revision (None: the manifest's prior) at a vehicle's odometer."""
    return calibration.extrapolate(_estimate_of(revision, manifest), manifest, odometer or 0.0)


def forget(vehicle: Vehicle) -> None:
    """It runs another bundle: what was read off the one before says nothing any more."""
    vehicle.soh = vehicle.soh_std = vehicle.drift = None
    vehicle.figures_revision = vehicle.relative_std = vehicle.error_left = None


def noted(vehicle: Vehicle, now: float) -> Evidence:
    """The evidence as the vehicle's row has it, without its revision: what lists are judged by.

    The uncertainty is that at the newest revision's own odometer.
    """
    return Evidence(
        trips=vehicle.trips,
        calibrations=vehicle.calibrations if vehicle.relative_std is not None else 0,
        relative_std=vehicle.relative_std or 1.0,
        error_left=vehicle.error_left,
        failures=vehicle.failures,
        last_trip_age_s=_age_s(vehicle, now),
    )


def gather(vehicle: Vehicle, standing: Revision | None, manifest: Manifest, now: float) -> Evidence:
    """The evidence behind `standing`, the newest revision that stands, at `now`."""
    return gather_all([(vehicle, standing)], manifest, now)[0]


def gather_all(
    standing: Sequence[tuple[Vehicle | Assessed, Revision | None]], manifest: Manifest, now: float
) -> list[Evidence]:
    """The same of several vehicles, computed together."""
    prior_stds = np.array([parameter.prior_std for parameter in manifest.parameters])
    return [
        Evidence(
            trips=vehicle.trips,
            calibrations=vehicle.calibrations if revision else 0,
            relative_std=relative_std(estimate.covariance, prior_stds),
            error_left=error_left(revision, manifest),
            failures=vehicle.failures,
            last_trip_age_s=_age_s(vehicle, now),
        )
        for (vehicle, revision), estimate in zip(
            standing, _estimates_now(standing, manifest), strict=True
        )
    ]


def error_left(revision: Revision | None, manifest: Manifest) -> float | None:
    """What its calibration left on its own trip, in thresholds; None where no breach brought it."""
    if revision is None or revision.cause.kind != "breach":
        return None
    return revision.cause.error_after_v / manifest.error_threshold_v


def _estimates_now(
    standing: Sequence[tuple[Vehicle | Assessed, Revision | None]], manifest: Manifest
) -> list[Estimate]:
    """Each at its vehicle's odometer; what the vehicle has not gone beyond stays as it is."""
    found = [_estimate_of(revision, manifest) for _, revision in standing]
    odometers = [vehicle.odometer or 0.0 for vehicle, _ in standing]
    moved = [n for n, known in enumerate(found) if odometers[n] > known.odometer]
    if moved:
        known = [found[n] for n in moved]
        there = np.array([odometers[n] for n in moved])
        ahead = extrapolated(batch_of(known, manifest), there, manifest)
        for n, estimate in zip(moved, estimates_of(ahead, known, manifest), strict=True):
            found[n] = estimate
    return found


def _estimate_of(revision: Revision | None, manifest: Manifest) -> Estimate:
    return calibration.estimate_of(revision) if revision else calibration.prior(manifest)


def _age_s(vehicle: Vehicle | Assessed, now: float) -> float | None:
    received_at = vehicle.last_trip_received_at
    return max(now - received_at, 0.0) if received_at else None
