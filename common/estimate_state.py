"""Say whether an estimate may be relied on: learning, known, stale or doubtful, with the reason.

Pure, with hysteresis: each state is entered at a stricter limit than it is left, so that evidence
that hovers around a limit does not make the state flicker. Must never hide a number; it only says
how far to trust it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

State = Literal["learning", "known", "stale", "doubtful"]

# Fewer trips say nothing about how the vehicle is usually driven.
MIN_TRIPS: Final = 3
# Posterior relative to prior standard deviation: half of it is known, above 0.7 is learned anew.
KNOWN_BELOW_STD: Final = 0.5
LEARNING_ABOVE_STD: Final = 0.7
# The error that the last calibration left on its own trip, in thresholds. (Its NIS says nothing
# here: a breach is a surprise by selection.)
DOUBTFUL_ABOVE_ERROR: Final = 1.0
TRUSTED_BELOW_ERROR: Final = 0.8
# Breaches in a row that brought no usable revision.
DOUBTFUL_FROM_FAILURES: Final = 3
STALE_AFTER_S: Final = 30 * 86400.0
FRESH_WITHIN_S: Final = 7 * 86400.0


@dataclass(frozen=True)
class Evidence:
    """What is known about an estimate.

    `relative_std` is the posterior's standard deviation over the prior's (1: nothing learned);
    `error_left` is the error after the newest calibration on its own trip over the threshold, None
    before the first; `failures` counts the breaches since the estimate's own that were declined or
    whose revision the vehicle refused; `last_trip_age_s` is None before the first trip.
    """

    trips: int
    calibrations: int
    relative_std: float
    error_left: float | None = None
    failures: int = 0
    last_trip_age_s: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A state and, unless it is *known*, one sentence that says why."""

    state: State
    reason: str | None = None


def judge(previous: State, evidence: Evidence) -> Judgement:
    """The state after `previous` in the light of the evidence; the gravest finding wins."""
    for reason, state in (
        (_learning_reason(previous, evidence), "learning"),
        (_doubt_reason(previous, evidence), "doubtful"),
        (_stale_reason(previous, evidence), "stale"),
    ):
        if reason is not None:
            return Judgement(state, reason)  # type: ignore[arg-type]  # the literals above
    return Judgement("known")


def relative_std(covariance: npt.NDArray[np.float64], prior_stds: npt.NDArray[np.float64]) -> float:
    """Geometric mean over the P parameters of posterior over prior standard deviation.

    covariance: [2P, 2P] over (theta, rate), or [P, P]; prior_stds: [P].
    """
    variances = np.diag(covariance)[: len(prior_stds)]
    ratios = np.sqrt(np.maximum(variances, np.finfo(float).tiny)) / prior_stds
    return float(np.exp(np.log(ratios).mean()))


def _learning_reason(previous: State, evidence: Evidence) -> str | None:
    if evidence.calibrations == 0:
        return "no calibration yet: no breach has brought a revision"
    if evidence.trips < MIN_TRIPS:
        return f"{evidence.trips} of {MIN_TRIPS} trips seen"
    limit = KNOWN_BELOW_STD if previous == "learning" else LEARNING_ABOVE_STD
    if evidence.relative_std <= limit:
        return None
    return f"the uncertainty is still {evidence.relative_std:.0%} of the prior's"


def _doubt_reason(previous: State, evidence: Evidence) -> str | None:
    if evidence.failures >= DOUBTFUL_FROM_FAILURES:
        return f"{evidence.failures} breaches in a row brought no usable revision"
    limit = TRUSTED_BELOW_ERROR if previous == "doubtful" else DOUBTFUL_ABOVE_ERROR
    if evidence.error_left is None or evidence.error_left <= limit:
        return None
    return (
        f"the last calibration could not explain its own trip: {evidence.error_left:.2f} of the "
        f"threshold were left, {limit:g} are trusted"
    )


def _stale_reason(previous: State, evidence: Evidence) -> str | None:
    limit = FRESH_WITHIN_S if previous == "stale" else STALE_AFTER_S
    age = evidence.last_trip_age_s
    if age is None or age <= limit:
        return None
    return f"no trip has arrived for {age / 86400:.0f} days"
