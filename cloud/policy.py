"""What a cohort's policy says, and what follows from it for a breach.

Pure. The error from which a trip is a breach stands in the bundle's manifest and is the vehicle's
to apply: a policy says what the cloud makes of the breaches that come. Must never change what was
calibrated before it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

Volts = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a cohort; these are the ones of a cohort that has none.

    `calibration`: a revision is pushed at once, or waits for an operator's approval. A breach with
    an error below `calibrate_from_error_v` or above `refuse_above_error_v` brings no revision.
    The rest says from when on there is an alarm, and how far a forecast looks.
    """

    calibration: Literal["automatic", "approval"] = "automatic"
    calibrate_from_error_v: Volts | None = None
    refuse_above_error_v: Volts | None = None
    health_limit: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.8
    forecast_horizon_days: Annotated[float, msgspec.Meta(gt=0, le=36525)] = 3652.5
    stale_after_days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 30.0
    failures_in_a_row: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3


DEFAULT: Final = Policy()


def refusal(policy: Policy, error_v: float) -> str | None:
    """Why a breach with this error brings no revision under the policy; None: it may."""
    least, most = policy.calibrate_from_error_v, policy.refuse_above_error_v
    if least is not None and error_v < least:
        return f"its error of {error_v:.4g} V is below the {least:g} V of its cohort's policy"
    if most is not None and error_v > most:
        return f"its error of {error_v:.4g} V is above the {most:g} V of its cohort's policy"
    return None
