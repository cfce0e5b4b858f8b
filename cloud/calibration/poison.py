"""Breaches over which the calibration fails: kept where an operator sees them, with the reason.

Must never hold up another vehicle's breach, nor decline one that has not failed by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from sqlmodel import Session, col, select, update

from cloud.errors import CalibrationFailedError
from cloud.intake.interpretation import Delivery
from cloud.store import pending_breaches, quarantined
from cloud.store.database import Store
from cloud.store.quarantined import Refused
from cloud.store.tables import Breach
from common import messages
from common.calibrator import Decline
from common.topics import topic

log = logging.getLogger(__name__)

MAX_TRIES: Final = 3
"""How often a worker may end over a breach: once in a round, then alone."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Poison(Decline):
    """The calibration itself failed: the breach goes to the quarantine as well."""


def poison(problem: object) -> Poison:
    """The decision that a breach has made the calibration fail."""
    return Poison(f"its calibration failed: {problem}"[:256], blames_estimate=False)


def apart(
    decide: Callable[[Sequence[_Item]], list[_Made]], items: Sequence[_Item]
) -> list[_Made | Poison]:
    """What `decide` makes of the items; when it fails over them, of each by itself."""
    try:
        return [*decide(items)]
    except Exception as error:
        if len(items) == 1:
            log.exception("calibration_failed")
            return [poison(repr(error))]
    return [made for item in items for made in apart(decide, [item])]


def suspect(db: Session, lane: int, bundles: Sequence[str], limit: int) -> None:
    """A worker ended over one of the next breaches of a lane: from now on each goes alone."""
    ids = [breach.id for breach in pending_breaches.next_breaches(db, bundles, limit, [lane])]
    fresh = update(Breach).where(col(Breach.id).in_(ids), col(Breach.tries) == 0)
    db.exec(fresh.values(tries=1))


def count_try(store: Store, breach: Breach) -> int:
    """Note, before it is done, that a breach is tried alone; how often it has been tried."""
    with store.write() as db:
        row = db.exec(select(Breach).where(Breach.id == breach.id)).one()
        row.tries += 1
        return row.tries


def quarantine(db: Session, breach: Breach, decision: Poison, now: float) -> None:
    """Keep the breach as its vehicle sent it."""
    delivery = Delivery(topic(breach.vehicle_id, "breach"), messages.encode(_message(breach)))
    error = CalibrationFailedError(decision.reason)
    quarantined.keep(db, [Refused(delivery, error)], now)


def _message(breach: Breach) -> messages.Breach:
    named = (name for name in messages.Breach.__struct_fields__ if name not in {"schema", "trace"})
    fields = {name: getattr(breach, name) for name in named}
    trace = msgspec.json.decode(breach.trace, type=messages.Trace)
    return messages.Breach(**fields, trace=trace)
