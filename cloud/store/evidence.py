"""Collect what the state of a vehicle's estimate is judged on.

Pure. Must never judge: that is `common.estimate_state`.
"""

from __future__ import annotations

import numpy as np

from cloud.store.tables import Vehicle
from common import calibration
from common.calibration import Estimate
from common.estimate_state import Evidence, relative_std
from common.manifest import Manifest
from common.revision import Revision


def estimate_at(revision: Revision | None, manifest: Manifest, odometer: float | None) -> Estimate:
    """The estimate of a revision (None: the manifest's prior) at a vehicle's odometer."""
    known = calibration.estimate_of(revision) if revision else calibration.prior(manifest)
    return calibration.extrapolate(known, manifest, odometer or 0.0)


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
    estimate = estimate_at(standing, manifest, vehicle.odometer)
    prior_stds = np.array([parameter.prior_std for parameter in manifest.parameters])
    cause = standing.cause if standing and standing.cause.kind == "breach" else None
    return Evidence(
        trips=vehicle.trips,
        calibrations=vehicle.calibrations if standing else 0,
        relative_std=relative_std(estimate.covariance, prior_stds),
        error_left=cause.error_after_v / manifest.error_threshold_v if cause else None,
        failures=vehicle.failures,
        last_trip_age_s=_age_s(vehicle, now),
    )


def _age_s(vehicle: Vehicle, now: float) -> float | None:
    received_at = vehicle.last_trip_received_at
    return max(now - received_at, 0.0) if received_at else None
