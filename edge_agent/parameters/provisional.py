"""What the vehicle makes of its own breach while nobody answers: the cloud's own decision.

Pure. Must never have a number of the chain: a provisional is named by the revision that it grew
from, and by its step on it.
"""

from __future__ import annotations

from dataclasses import replace

from common import calibration
from common.believable import unfit
from common.calibrator import Case, Decline, MakeRevision, decide
from common.errors import ContractError
from common.messages import Breach, Provisional, message_id
from common.revision import check_states
from common.trace import from_wire
from edge_agent import __version__
from edge_agent.parameters.decisions import Identity
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.trip_monitor import Twin


def provisional_of(
    breach: Breach, twin: Twin, failures: int, who: Identity, now: Stamp
) -> Provisional | Decline:
    """The next provisional after `twin`, or why there is none; what the cloud declines is declined.

    `failures` counts the breaches in a row before it that brought none.
    """
    trace = from_wire(breach.trace, who.manifest)
    case = Case(trace, breach.odometer, twin.estimate, twin.estimate, failures)
    [decision] = decide([case], twin.model, who.manifest, twin.settings)
    if isinstance(decision, Decline):
        return decision
    if unfit(decision.calibrated.estimate, who.manifest) is not None:
        return Decline("the posterior is no battery's")
    return _message(breach, twin, decision, who, now)


def twin_on(made: Provisional, base: Twin, who: Identity) -> Twin | None:
    """The twin that runs `made` on its base; None where it is another's, or not to be believed.

    A trial of the base waits until the base itself drives again.
    """
    if (made.vehicle_id, made.bundle, made.base) != (who.vehicle_id, who.bundle, base.revision):
        return None
    if len(made.theta) != len(who.manifest.parameters):
        return None
    try:
        check_states("Provisional", made)
    except ContractError:
        return None
    estimate = calibration.estimate_of(made)
    if unfit(estimate, who.manifest) is not None:
        return None
    return replace(base, estimate=estimate, provisional=made.step, confirmed=None)


def _message(
    breach: Breach, twin: Twin, decision: MakeRevision, who: Identity, now: Stamp
) -> Provisional:
    found = decision.calibrated
    return Provisional(
        message_id=message_id(who.vehicle_id, breach.trip_id, "provisional"),
        vehicle_id=who.vehicle_id,
        bundle=who.bundle,
        base=twin.revision,
        step=twin.provisional + 1,
        **calibration.carried(found.estimate),
        cause=breach.message_id,
        trip_id=breach.trip_id,
        finding="changed_battery" if found.finding == "changed_battery" else "drift",
        points=found.points,
        nis=found.nis,
        error_before_v=decision.error_before_v,
        error_after_v=found.error_after_v,
        made_at=round(now.unix_s, 3),
        time_known=now.is_known,
        code_version=__version__,
    )
