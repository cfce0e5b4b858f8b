"""Take a signed revision in: authenticate, judge, and keep parameters and acknowledgement as one.

Must never apply what invariant 5 does not allow, and never lose the old parameters on the way.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from common import calibration
from common.calibration import Settings
from common.errors import TwinError
from common.messages import MAX_PAYLOAD_BYTES, SignedRevision, decode, encode
from common.model import VoltageModel
from common.revision import is_on_trial, starts_a_battery
from edge_agent.errors import StorageError
from edge_agent.parameters import revision_records
from edge_agent.parameters.decisions import (
    Identity,
    KeptTrace,
    Verdict,
    authenticate,
    authenticate_kept,
    judge,
)
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import acknowledgement
from edge_agent.trips.trip_monitor import Twin

log = logging.getLogger(__name__)


def restore_twin(state: State, who: Identity, model: VoltageModel) -> Twin:
    """What was on trial or confirmed, where it still stands every check; else nominal parameters.

    A record that is damaged is taken from the copy beside the state. One that stands nowhere is
    forgotten, with the number judged last: so the cloud's newest is taken again.
    """
    fit = _fit_records(state, who)
    confirmed = Twin(who.manifest, model, calibration.prior(who.manifest), 0, Settings())
    newest = next((fit[slot] for slot in revision_records.NEWEST_FIRST if slot in fit), None)
    if newest is not None:
        confirmed = _twin(newest, who, model)
    tried = fit.get(revision_records.TRIAL)
    return confirmed if tried is None else replace(_twin(tried, who, model), confirmed=confirmed)


def _fit_records(state: State, who: Identity) -> dict[str, Verdict]:
    """By slot, what may be run; the slots are put right."""
    first, *others = state.stored_slots()
    fit: dict[str, Verdict] = {}
    healed: dict[str, bytes] = {}
    unfit: set[str] = set()
    for slot in first.keys() & revision_records.IN_FORCE:
        for source in (first, *others):
            record = source.get(slot)
            found = _fit(record, who) if record is not None else None
            if found is not None and record is not None:
                fit[slot] = found
                if source is not first:
                    healed[slot] = encode(record)
                break
        else:
            unfit.add(slot)
    if unfit or healed:
        _put_right(state, healed, unfit)
    return fit


def _fit(record: SignedRevision, who: Identity) -> Verdict | None:
    found = authenticate_kept(record, who)
    if found.applied and found.revision is not None:
        return found
    log.error("stored_revision_refused reason=%s detail=%s", found.reason, found.detail)
    return None


def _put_right(state: State, healed: Mapping[str, bytes], unfit: Collection[str]) -> None:
    try:
        with state.transaction() as db:
            for slot, signed in healed.items():
                kept.write_parameters(db, slot, signed)
            for slot in {*unfit, revision_records.JUDGED} if unfit else ():
                kept.forget_parameters(db, slot)
    except (StorageError, sqlite3.Error) as error:
        log.warning("stored_revision_not_put_right error=%s", error)


def _twin(verdict: Verdict, who: Identity, model: VoltageModel) -> Twin:
    assert verdict.revision is not None  # noqa: S101 - an applied verdict has one
    estimate = calibration.estimate_of(verdict.revision)
    return Twin(who.manifest, model, estimate, verdict.revision.number, Settings())


def applied(verdict: Verdict, who: Identity, twin: Twin) -> Twin:
    """The twin that runs the verdict's revision, on trial where it must prove itself."""
    made = _twin(verdict, who, twin.model)
    if not _goes_on_trial(verdict):
        return made
    return replace(made, confirmed=twin.confirmed or twin)


def _goes_on_trial(verdict: Verdict) -> bool:
    return verdict.revision is not None and is_on_trial(verdict.revision.cause)


def consider(payload: bytes, twin: Twin, state: State, who: Identity) -> Verdict | None:
    """The verdict on a message; None when it is what was judged last, or is in force, come again.

    Raises ContractError when the payload is no signed revision.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        return Verdict("too_large", f"it has {len(payload)} bytes")
    signed = decode(payload, SignedRevision)
    authentic = authenticate(signed, who)
    if authentic.revision is None or not authentic.applied:
        return authentic
    db = state.connection
    judged = revision_records.judged(db)
    confirmed = [record for _, record in revision_records.confirmed(db)]
    if _is_among(signed, (judged, revision_records.trial(db), *confirmed[:1])):
        return None
    if _is_among(signed, confirmed):
        return replace(authentic, reason="replayed", detail="it was in force before")
    last = authenticate_kept(judged, who).revision if judged else None
    if last is not None and last.number == authentic.revision.number:
        detail = f"another revision {last.number} was judged before"
        return replace(authentic, reason="conflicting", detail=detail)
    # What was forgotten may be taken again, but nothing that is older than that.
    floor = revision_records.floor(db, who.bundle)
    judged_number = max(twin.revision, last.number if last else 0, floor - 1)
    trace = _trace_for(authentic.revision.cause.message_id, state, who)
    return judge(authentic, judged_number, twin.estimate, trace, twin.model, who.manifest)


def newest_judged(state: State, who: Identity, twin: Twin) -> int:
    """The number of the newest revision that has been judged."""
    judged = revision_records.judged(state.connection)
    last = authenticate_kept(judged, who).number if judged else None
    return max(twin.revision, last or 0)


def _is_among(signed: SignedRevision, records: Iterable[SignedRevision | None]) -> bool:
    return any(record is not None and record.revision == signed.revision for record in records)


def record(verdict: Verdict, payload: bytes, state: State, who: Identity, now: Stamp) -> None:
    """Commit a verdict on a signed revision. Raises StorageError: then nothing has changed."""
    if verdict.number is None:
        return  # nobody trustworthy to answer, or nothing to name in the answer
    answer = acknowledgement(verdict, verdict.number, who, now)
    with state.transaction() as db:
        timekeeper.keep_stamped(db, "ack", answer.message_id, encode(answer), now)
        if verdict.revision is not None and verdict.reason in {"", "worse_on_trace"}:
            kept.write_parameters(db, revision_records.JUDGED, payload)
            kept.settle(db, verdict.revision.cause.message_id)
        if verdict.applied:
            _keep_applied(db, verdict, payload, who)


def _keep_applied(db: sqlite3.Connection, verdict: Verdict, payload: bytes, who: Identity) -> None:
    revision = verdict.revision
    assert revision is not None  # noqa: S101 - an applied verdict has one
    if _goes_on_trial(verdict):
        revision_records.begin_trial(db, payload)
    else:
        revision_records.confirm(db, payload, who.bundle, revision.number)
    if revision.cause.kind == "replacement":
        revision_records.forget_earlier(db)
    if starts_a_battery(revision.cause):
        kept.forget_before(db, revision.odometer)


def _trace_for(cause: str, state: State, who: Identity) -> KeptTrace | None:
    """A kept trace that can no longer be read is as good as none."""
    try:
        return kept.trace_for(state.connection, cause, who.manifest)
    except TwinError:
        return None
