"""Take a signed revision in: authenticate, judge, and keep parameters and acknowledgement as one.

Must never apply what invariant 5 does not allow, and never lose the old parameters on the way.
"""

from __future__ import annotations

import logging
import sqlite3

from common import calibration
from common.calibration import Settings
from common.errors import TwinError
from common.messages import SignedRevision, decode, encode
from common.model import VoltageModel
from common.revision import starts_a_battery
from edge_agent import kept, outbox, timekeeper
from edge_agent.decisions import Identity, KeptTrace, Verdict, authenticate, judge
from edge_agent.errors import StorageError
from edge_agent.reports import acknowledgement
from edge_agent.stamps import Stamp
from edge_agent.state import State
from edge_agent.trip_monitor import Twin

log = logging.getLogger(__name__)


def restore_twin(state: State, who: Identity, model: VoltageModel) -> Twin:
    """The newest applied revision that still stands every check, else the nominal parameters.

    What does not is forgotten, with the number judged last: so the cloud's newest is taken again.
    """
    stored = state.applied_revisions()
    for position, signed in enumerate(stored):
        found = authenticate(signed, who)
        if found.applied and found.revision is not None:
            _keep_only(state, stored[position:])
            return twin_of(found, who, model)
        log.error("stored_revision_refused reason=%s detail=%s", found.reason, found.detail)
    _keep_only(state, [])
    return Twin(who.manifest, model, calibration.prior(who.manifest), 0, Settings())


def _keep_only(state: State, applied: list[SignedRevision]) -> None:
    """Where something else is current: forget it all, and write these, the newest first."""
    newest = applied[0] if applied else None
    try:
        db = state.connection
        if kept.read_parameters(db, "current") == newest and bool(newest) == kept.has_parameters(
            db
        ):
            return
        with state.transaction() as db:
            kept.forget_parameters(db)
            for signed in reversed(applied):
                kept.write_parameters(db, "current", encode(signed))
    except (StorageError, sqlite3.Error) as error:
        log.warning("stored_revision_not_forgotten error=%s", error)


def twin_of(verdict: Verdict, who: Identity, model: VoltageModel) -> Twin:
    """The twin that runs the verdict's revision."""
    assert verdict.revision is not None  # noqa: S101 - an applied verdict has one
    estimate = calibration.estimate_of(verdict.revision)
    return Twin(who.manifest, model, estimate, verdict.revision.number, Settings())


def consider(payload: bytes, twin: Twin, state: State, who: Identity) -> Verdict | None:
    """The verdict on a message; None when it is the one that was judged last, come again.

    Raises ContractError when the payload is no signed revision.
    """
    signed = decode(payload, SignedRevision)
    authentic = authenticate(signed, who)
    judged = kept.read_parameters(state.connection, "judged")
    if authentic.revision is None or not authentic.applied:
        return authentic
    if judged is not None and judged.revision == signed.revision:
        return None
    last = authenticate(judged, who).revision if judged else None
    judged_number = max(twin.revision, last.number if last else 0)
    trace = _trace_for(authentic.revision.cause.message_id, state, who)
    return judge(authentic, judged_number, twin.estimate, trace, twin.model, who.manifest)


def record(verdict: Verdict, payload: bytes, state: State, who: Identity, now: Stamp) -> None:
    """Commit a verdict on a signed revision. Raises StorageError: then nothing has changed."""
    revision = verdict.revision
    if verdict.number is None:
        return  # nobody trustworthy to answer, or nothing to name in the answer
    answer = acknowledgement(verdict, verdict.number, who, now)
    with state.transaction() as db:
        if outbox.put(db, "ack", answer.message_id, encode(answer), now.unix_if_known()):
            timekeeper.mark(db, "ack", answer.message_id, now)
        if revision is not None and verdict.reason in {"", "worse_on_trace"}:
            kept.write_parameters(db, "judged", payload)
            kept.settle(db, revision.cause.message_id)
        if verdict.applied:
            kept.write_parameters(db, "current", payload)
            if revision is not None and starts_a_battery(revision.cause):
                kept.forget_before(db, revision.odometer)


def _trace_for(cause: str, state: State, who: Identity) -> KeptTrace | None:
    """A kept trace that can no longer be read is as good as none."""
    try:
        return kept.trace_for(state.connection, cause, who.manifest)
    except TwinError:
        return None
