"""Decide what a breach brings: a revision, or a reason why there is none.

Pure: arrays in, decisions out. Must never let one bad trace spoil the calibration of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from common import calibration
from common.calibration import Calibrated, Estimate, Settings
from common.errors import CalibrationError
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays

# One bad trip, or two, is a sensor or the weather; from the third on the battery is another one.
BELIEVED_FROM_FAILURES: Final = 2


@dataclass(frozen=True)
class Case:
    """A breach: its trace at `odometer`, the prior `base`, and what the vehicle ran (`running`).

    A vehicle that runs its base has the very same object there: its error is then known. `failures`
    counts the breaches before it that brought no usable revision.
    """

    trace: TraceArrays
    odometer: float
    base: Estimate
    running: Estimate
    failures: int = 0


@dataclass(frozen=True)
class MakeRevision:
    """Send this posterior; `error_before_v` is the error on the trace of what the vehicle ran."""

    calibrated: Calibrated
    error_before_v: float


@dataclass(frozen=True)
class Decline:
    """No revision, and why (at most 256 characters); late ones do not blame the estimate."""

    reason: str
    blames_estimate: bool = True


Decision = MakeRevision | Decline


def decide(
    cases: Sequence[Case], model: VoltageModel, manifest: Manifest, settings: Settings
) -> list[Decision]:
    """One decision for each case, in their order; one batch of the calibration for all of them."""
    try:
        results = _calibrate(cases, model, manifest, settings)
    except (CalibrationError, ArithmeticError, ValueError) as error:
        if len(cases) == 1:
            return [Decline(str(error)[:256])]
        return [decide([case], model, manifest, settings)[0] for case in cases]
    return [
        _judge(case, result, model, manifest) for case, result in zip(cases, results, strict=True)
    ]


def _calibrate(
    cases: Sequence[Case], model: VoltageModel, manifest: Manifest, settings: Settings
) -> list[Calibrated]:
    return calibration.calibrate(
        [case.base for case in cases],
        [case.trace for case in cases],
        [case.odometer for case in cases],
        model,
        manifest,
        settings,
    )


def _judge(case: Case, result: Calibrated, model: VoltageModel, manifest: Manifest) -> Decision:
    """The vehicle refuses what is outside the bounds or worsens its trace: do not even send it.

    It may run the base by the time it judges, so the error must fall below the base's error, too.
    """
    if not calibration.is_inside_bounds(result.estimate, manifest):
        return Decline("the posterior is not finite")
    if not np.isfinite([result.nis, result.error_before_v, result.error_after_v]).all():
        return Decline("the calibration gave a number that is not finite")
    if result.finding == "unexplained" and case.failures < BELIEVED_FROM_FAILURES:
        return Decline(result.problem[:256])
    before = result.error_before_v
    if case.running is not case.base:
        before = _running_error(case, model, manifest)
    best = min(before, result.error_before_v)
    if result.error_after_v >= best:
        return Decline(
            f"a calibration would not lower the error on the trace: {best:.4f} V before, "
            f"{result.error_after_v:.4f} V after"
        )
    return MakeRevision(result, before)


def _running_error(case: Case, model: VoltageModel, manifest: Manifest) -> float:
    there = calibration.extrapolate(case.running, manifest, case.odometer)
    return calibration.aligned_error_v(there, case.trace, model, manifest)
