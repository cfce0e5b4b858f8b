"""The end of a trial: after its trip a revision is confirmed, or what was confirmed drives again.

Verdict, records and acknowledgement are written in the transaction of the trip itself. Must never
settle a trial that another revision has ended meanwhile.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass, replace

from common.messages import encode
from edge_agent.parameters import revision_records
from edge_agent.parameters.canary import Beside
from edge_agent.parameters.decisions import Identity, authenticate_kept
from edge_agent.storage import kept
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import trial_acknowledgement
from edge_agent.trips.trip_monitor import Twin

log = logging.getLogger(__name__)

FALLEN_BACK = "revisions_fallen_back"


@dataclass(frozen=True)
class TrialEnd:
    """What became of revision `revision` on trial."""

    revision: int
    fell_back: bool


def settle(
    db: sqlite3.Connection, beside: Beside | None, who: Identity, now: Stamp
) -> TrialEnd | None:
    """Inside the caller's transaction; None where the trip says nothing about a trial."""
    signed = revision_records.trial(db) if beside is not None else None
    if signed is None or beside is None:
        return None
    found = authenticate_kept(signed, who)
    if found.number != beside.revision:
        return None
    told = trial_acknowledgement(beside, found.hash, who, now)
    timekeeper.keep_stamped(db, "ack", told.message_id, encode(told), now)
    fell_back = told.verdict == "refused"
    if fell_back:
        revision_records.end_trial(db)
        kept.count(db, FALLEN_BACK)
    else:
        revision_records.confirm(db, encode(signed), who.bundle, beside.revision)
    return TrialEnd(beside.revision, fell_back)


def after(twin: Twin, end: TrialEnd) -> Twin:
    """What drives from now on."""
    if twin.confirmed is None or twin.revision != end.revision:
        return twin
    if not end.fell_back:
        log.info("revision_confirmed revision=%d", end.revision)
        return replace(twin, confirmed=None)
    told = "revision_fallen_back from=%d to=%d: it was worse on its first trip"
    log.error(told, end.revision, twin.confirmed.revision)
    return twin.confirmed
