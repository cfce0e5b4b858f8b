"""Breaches that wait: whose turn it is, what each is judged against, and that it is settled once.

Must never settle a breach whose vehicle is not locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import ColumnElement, Table, bindparam, exists, func
from sqlalchemy import select as columns
from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, select
from sqlmodel.sql.expression import SelectOfScalar

from cloud.errors import OvertakenError
from cloud.store import new_revisions, pinned
from cloud.store.audit_tables import Pin
from cloud.store.bulk import Update
from cloud.store.membership import among
from cloud.store.new_revisions import NewRevision
from cloud.store.operator_tables import PolicyRow
from cloud.store.revisions import (
    NEWEST_ID,
    Replacement,
    by_number,
    newest_standing,
    replacements,
)
from cloud.store.tables import Breach, RevisionRow, Vehicle

_LATER = aliased(RevisionRow)


def _next(*of: ColumnElement[bool]) -> SelectOfScalar[Breach]:
    """The first of each vehicle, in one walk over what is pending.

    Asking of each whether an earlier one waits is a walk for each: a database whose statistics say
    that nothing is pending, which is what they say at most times, then plans a loop within a loop.
    """
    place = func.row_number().over(
        partition_by=col(Breach.vehicle_id), order_by=[col(Breach.odometer), col(Breach.id)]
    )
    waiting = select(Breach.id, place.label("place"))
    waiting = waiting.where(Breach.state == "pending", among(Breach.bundle, "bundles"), *of)
    placed = waiting.subquery()
    first = columns(placed.c.id).where(placed.c.place == 1)
    first = first.order_by(placed.c.id).limit(bindparam("limit"))
    return select(Breach).where(col(Breach.id).in_(first)).order_by(col(Breach.id))


_NEXT_BREACHES = _next()
_NEXT_OF_LANES = _next(among(Breach.lane, "lanes", numbers=True))
_POLICIES = select(func.coalesce(func.max(PolicyRow.id), 0)).scalar_subquery()
_IS_PINNED = exists().where(col(Pin.vehicle_id) == Vehicle.vehicle_id, col(Pin.ended_at).is_(None))
_IS_REPLACED = exists().where(
    col(_LATER.vehicle_id) == Vehicle.vehicle_id, col(_LATER.kind) == "replacement"
)
_STANDING_OF = (
    select(RevisionRow, Vehicle.vehicle_id, Vehicle.cohort, Vehicle.failures)
    .add_columns(_IS_PINNED, _IS_REPLACED, _POLICIES)
    .select_from(Vehicle)
    .outerjoin(RevisionRow, col(RevisionRow.id) == NEWEST_ID)
    .where(among(Vehicle.vehicle_id, "vehicles"))
)
_NEWEST_NOW = (
    select(_LATER.number)
    .where(col(_LATER.vehicle_id) == Breach.vehicle_id)
    .order_by(col(_LATER.number).desc())
    .limit(1)
    .correlate(Breach)
    .scalar_subquery()
)
_STILL_WAITS = (
    select(Breach.id, RevisionRow.number, RevisionRow.verdict)
    .outerjoin(
        RevisionRow,
        and_(
            col(RevisionRow.vehicle_id) == Breach.vehicle_id, col(RevisionRow.number) == _NEWEST_NOW
        ),
    )
    .where(among(Breach.id, "ids", numbers=True), col(Breach.state) == "pending")
)
_TABLE: Final[Table] = Breach.__table__  # type: ignore[attr-defined]
_SETTLE = Update(_TABLE, "id", ["state", "reason", "decided_at"], "breach.state = 'pending'")
_NOBODY: Final = ("default", 0)


@dataclass(frozen=True)
class History:
    """What a breach is judged against.

    `newest` revision of all, the newest that stands, the newest that stands for the breach's bundle
    (`base`), and the one that the vehicle ran; `failures` breaches in a row brought none. The
    present battery came at the odometer `battery_from`: what stood before says nothing of it.
    """

    newest: RevisionRow | None = None
    standing: RevisionRow | None = None
    base: RevisionRow | None = None
    running: RevisionRow | None = None
    failures: int = 0
    battery_from: float = 0.0


@dataclass(frozen=True)
class Pending:
    """A breach and all that it is judged against; `policies` is the last version of any policy."""

    breach: Breach
    history: History
    cohort: str
    pin: Pin | None
    policies: int


def next_breaches(
    db: Session, bundles: Sequence[str], limit: int, lanes: Sequence[int] | None = None
) -> list[Breach]:
    """The pending breach of lowest odometer of each vehicle, for `limit` vehicles, oldest first.

    Of the vehicles of these lanes, if they are given.
    """
    wanted: dict[str, object] = {"bundles": bundles, "limit": limit}
    if lanes is None:
        return list(db.exec(_NEXT_BREACHES, params=wanted))
    return list(db.exec(_NEXT_OF_LANES, params=wanted | {"lanes": lanes}))


def pending_lanes(db: Session, bundles: Sequence[str], before: float) -> list[int]:
    """The lanes with breaches that arrived before then and wait."""
    query = select(Breach.lane).where(
        Breach.state == "pending",
        col(Breach.bundle).in_(bundles),
        Breach.received_at <= before,
    )
    return sorted({lane for lane in db.exec(query.distinct()) if lane is not None})


def with_histories(db: Session, breaches: Sequence[Breach]) -> list[Pending]:
    """Of each breach the revisions that matter, and what operators said of its vehicle."""
    if not breaches:
        return []
    names = sorted({breach.vehicle_id for breach in breaches})
    found = db.execute(_STANDING_OF, {"vehicles": names}).all()
    newest = {name: row for row, name, *_ in found}
    facts = {name: (cohort, failures) for _, name, cohort, failures, *_ in found}
    held = [one[1] for one in found if one[4]]
    pins = pinned.in_force(db, held) if held else {}
    changed = [one[1] for one in found if one[5]]
    replaced = replacements(db, changed) if changed else {}
    last_policy = found[0][6] if found else 0
    made = []
    for breach in breaches:
        name = breach.vehicle_id
        cohort, failures = facts.get(name, _NOBODY)
        history = _of_battery(_history(db, breach, newest.get(name)), replaced.get(name))
        made.append(
            Pending(
                breach, replace(history, failures=failures), cohort, pins.get(name), last_policy
            )
        )
    return made


def _of_battery(history: History, replaced: Replacement | None) -> History:
    if replaced is None:
        return history
    is_older = history.base is not None and history.base.number < replaced.number
    base = None if is_older else history.base
    return replace(history, base=base, battery_from=replaced.odometer)


def _history(db: Session, breach: Breach, newest: RevisionRow | None) -> History:
    """Mostly the newest revision stands for the same bundle, and runs: then nothing is asked."""
    if newest is None:
        return History()
    standing = newest if newest.verdict != "refused" else newest_standing(db, breach.vehicle_id)
    base = standing
    if base is not None and base.bundle != breach.bundle:
        base = newest_standing(db, breach.vehicle_id, breach.bundle)
    for known in (newest, standing):
        if known is not None and known.number == breach.revision:
            return History(newest, standing, base, known)
    running = by_number(db, breach.vehicle_id, breach.revision) if breach.revision else None
    return History(newest, standing, base, running)


def is_due(db: Session, breaches: Sequence[Breach], histories: Sequence[History]) -> list[bool]:
    """Whether each still waits, and its vehicle's chain is as it was; its vehicle must be locked.

    What another worker settled meanwhile, or what was refused meanwhile, is to be decided anew.
    """
    rows = db.connection().execute(_STILL_WAITS, {"ids": [breach.id for breach in breaches]})
    newest = {row: (number, verdict) for row, number, verdict in rows}
    return [
        breach.id in newest and _is_as_it_was(db, history, *newest[breach.id])
        for breach, history in zip(breaches, histories, strict=True)
    ]


def _is_as_it_was(db: Session, history: History, number: int | None, verdict: str | None) -> bool:
    known = history.newest
    if known is None or number is None:
        return known is None and number is None
    is_newest = (number, verdict) == (known.number, known.verdict)
    older = {row.id: row.verdict for row in (history.standing, history.base) if row is not None}
    older.pop(known.id, None)
    if not older or not is_newest:
        return is_newest
    query = select(RevisionRow.id, RevisionRow.verdict).where(col(RevisionRow.id).in_(older))
    return dict(db.exec(query).all()) == older


def settle(db: Session, made: Sequence[NewRevision], decided: Sequence[Breach], now: float) -> None:
    """Add revisions, and write the state and reason of the breaches they settle.

    Raises OvertakenError when one is settled already: nothing may be committed.
    """
    new_revisions.add(db, made)
    changes = [
        {"id": breach.id, "state": breach.state, "reason": breach.reason, "decided_at": now}
        for breach in decided
    ]
    if _SETTLE.execute(db, changes) != len(changes):
        raise OvertakenError(len(changes))
