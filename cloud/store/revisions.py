"""Breaches that wait, the revisions they bring, and what is still to be told.

A revision *stands* unless its vehicle refused it. Must never touch a revision's content again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, bindparam, exists, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, or_, select

from cloud.errors import OvertakenError
from cloud.store import events, locks, notes
from cloud.store.membership import among
from cloud.store.tables import Breach, ProvisionalRow, RevisionRow, SigningKey, Vehicle
from common.messages import Provisional, decode

_EARLIER = aliased(Breach)
_LATER = aliased(RevisionRow)


# Built once: putting a statement together costs more than running it.
_OF_VEHICLE = col(RevisionRow.vehicle_id) == bindparam("vehicle")
_STANDS = func.coalesce(RevisionRow.verdict, "") != "refused"
_MAY_RUN = func.coalesce(RevisionRow.approval, "") != "pending"  # nor what was rejected: refused
_NEWEST_FIRST = col(RevisionRow.number).desc()
_WAITS_BEHIND = exists().where(
    col(_EARLIER.vehicle_id) == Breach.vehicle_id,
    col(_EARLIER.state) == "pending",
    among(_EARLIER.bundle, "bundles"),
    or_(
        col(_EARLIER.odometer) < Breach.odometer,
        and_(col(_EARLIER.odometer) == Breach.odometer, col(_EARLIER.id) < col(Breach.id)),
    ),
)
_NEXT_BREACHES = (
    select(Breach)
    .where(col(Breach.state) == "pending", among(Breach.bundle, "bundles"), ~_WAITS_BEHIND)
    .order_by(col(Breach.id))
    .limit(bindparam("limit"))
)
_NEXT_OF_LANES = _NEXT_BREACHES.where(among(Breach.lane, "lanes", numbers=True))
_UNPUBLISHED = select(RevisionRow).where(
    _MAY_RUN,
    col(RevisionRow.published_at).is_(None),
    col(RevisionRow.created_at) <= bindparam("before"),
    ~exists().where(
        col(_LATER.vehicle_id) == RevisionRow.vehicle_id,
        col(_LATER.number) > RevisionRow.number,
        func.coalesce(_LATER.approval, "").not_in(["pending", "rejected"]),
    ),
)
_NEWEST_ID = (  # one row of each, however many a vehicle has
    select(_LATER.id)
    .where(col(_LATER.vehicle_id) == Vehicle.vehicle_id)
    .order_by(col(_LATER.number).desc())
    .limit(1)
    .correlate(Vehicle)
    .scalar_subquery()
)
_NEWEST_OF = select(RevisionRow).where(
    col(RevisionRow.id).in_(select(_NEWEST_ID).where(among(Vehicle.vehicle_id, "vehicles")))
)
_BY_NUMBER = select(RevisionRow).where(_OF_VEHICLE, col(RevisionRow.number) == bindparam("number"))
_NEWEST_STANDING = select(RevisionRow).where(_OF_VEHICLE, _STANDS).order_by(_NEWEST_FIRST).limit(1)
_NEWEST_OF_BUNDLE = _NEWEST_STANDING.where(col(RevisionRow.bundle) == bindparam("bundle"))
_NEWEST_TO_RUN = _NEWEST_OF_BUNDLE.where(_MAY_RUN)
_UNANSWERED = select(RevisionRow).where(
    _MAY_RUN,
    col(RevisionRow.verdict).is_(None),
    ~exists().where(
        col(_LATER.vehicle_id) == RevisionRow.vehicle_id,
        col(_LATER.number) > RevisionRow.number,
        func.coalesce(_LATER.verdict, "") != "refused",
        func.coalesce(_LATER.approval, "") != "pending",
    ),
)
_VEHICLES = select(Vehicle).where(among(Vehicle.vehicle_id, "vehicles"))
_REPLACED = (
    select(RevisionRow.vehicle_id, RevisionRow.number, RevisionRow.odometer)
    .where(among(RevisionRow.vehicle_id, "vehicles"), RevisionRow.kind == "replacement")
    .order_by(col(RevisionRow.number))
)
_WAITING = select(Breach.id).where(
    among(Breach.id, "ids", numbers=True), col(Breach.state) == "pending"
)
_SETTLE = (
    update(Breach)
    .where(col(Breach.id) == bindparam("row"), col(Breach.state) == "pending")
    .values(state=bindparam("to"), reason=bindparam("why"), decided_at=bindparam("now"))
)


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
class Replacement:
    """The revision with which a vehicle's present battery began."""

    number: int
    odometer: float


def made_of(db: Session, provisional: ProvisionalRow) -> int | None:
    """The number of the revision that came of the breach on which a vehicle helped itself."""
    cause = decode(provisional.content, Provisional).cause
    made = caused_by(db, provisional.vehicle_id, cause)
    return made.number if made else None


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


def of_lane(lane: int) -> Select[Any]:
    """The ids of a lane's vehicles, for a subquery."""
    return select(Vehicle.vehicle_id).where(Vehicle.lane == lane)


def histories(db: Session, breaches: Sequence[Breach]) -> list[History]:
    """The revisions that matter for each breach."""
    ids = {breach.vehicle_id for breach in breaches}
    newest, failures, replaced = newest_of(db, ids), _failures_of(db, ids), replacements(db, ids)
    return [
        replace(
            _of_battery(
                _history(db, breach, newest.get(breach.vehicle_id)), replaced.get(breach.vehicle_id)
            ),
            failures=failures.get(breach.vehicle_id, 0),
        )
        for breach in breaches
    ]


def replacements(db: Session, vehicle_ids: Collection[str]) -> dict[str, Replacement]:
    """Of each of these vehicles whose battery was replaced, the last time."""
    rows = db.connection().execute(_REPLACED, {"vehicles": list(vehicle_ids)})
    return {vehicle_id: Replacement(number, odometer) for vehicle_id, number, odometer in rows}


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


def newest_of(db: Session, vehicle_ids: Collection[str]) -> dict[str, RevisionRow]:
    """The newest revision of each of these vehicles that has one."""
    rows = db.exec(_NEWEST_OF, params={"vehicles": list(vehicle_ids)})
    return {row.vehicle_id: row for row in rows}


def _failures_of(db: Session, vehicle_ids: Collection[str]) -> dict[str, int]:
    rows = db.exec(_VEHICLES, params={"vehicles": list(vehicle_ids)})
    return {row.vehicle_id: row.failures for row in rows}


def by_number(db: Session, vehicle_id: str, number: int) -> RevisionRow | None:
    """Revision `number` of a vehicle."""
    return db.exec(_BY_NUMBER, params={"vehicle": vehicle_id, "number": number}).first()


def has_fresh_start(db: Session, vehicle_id: str, before: int, after: int) -> bool:
    """Whether a revision behind `before`, up to `after`, did not grow out of the one before it."""
    query = select(RevisionRow.id).where(
        RevisionRow.vehicle_id == vehicle_id,
        RevisionRow.number > before,
        RevisionRow.number <= after,
        RevisionRow.kind != "breach",
    )
    return db.exec(query.limit(1)).first() is not None


def all_of(db: Session, vehicle_id: str) -> list[RevisionRow]:
    """Every revision of a vehicle, the oldest first."""
    query = select(RevisionRow).where(RevisionRow.vehicle_id == vehicle_id)
    return list(db.exec(query.order_by(col(RevisionRow.number))))


def caused_by(db: Session, vehicle_id: str, message_id: str) -> RevisionRow | None:
    """The revision that a breach brought."""
    query = select(RevisionRow).where(
        RevisionRow.vehicle_id == vehicle_id, RevisionRow.cause_message_id == message_id
    )
    return db.exec(query).first()


def newest_standing(db: Session, vehicle_id: str, bundle: str | None = None) -> RevisionRow | None:
    """The newest revision that the vehicle did not refuse; of one bundle when it is given."""
    if bundle is None:
        return db.exec(_NEWEST_STANDING, params={"vehicle": vehicle_id}).first()
    wanted = {"vehicle": vehicle_id, "bundle": bundle}
    return db.exec(_NEWEST_OF_BUNDLE, params=wanted).first()


def newest_for(db: Session, vehicle_id: str) -> RevisionRow | None:
    """What a vehicle should run: the newest that stands for the bundle that it says it has."""
    vehicle = db.get(Vehicle, vehicle_id)
    return newest_to_run(db, vehicle_id, vehicle.bundle if vehicle else None)


def newest_to_run(db: Session, vehicle_id: str, bundle: str | None) -> RevisionRow | None:
    """The newest that stands, and waits for nobody's approval; of one bundle when it is given."""
    if bundle is None:
        return db.exec(_NEWEST_STANDING.where(_MAY_RUN), params={"vehicle": vehicle_id}).first()
    wanted = {"vehicle": vehicle_id, "bundle": bundle}
    return db.exec(_NEWEST_TO_RUN, params=wanted).first()


def unpublished(db: Session, before: float) -> list[RevisionRow]:
    """Newest revisions made before then of which the broker has not said that it has them."""
    return list(db.exec(_UNPUBLISHED, params={"before": before}))


def newer_than(db: Session, numbers: Mapping[str, int]) -> list[RevisionRow]:
    """Of these vehicles the newest revision that stands, where it is newer than that number."""
    ids = [
        vehicle for vehicle, row in newest_of(db, numbers).items() if row.number > numbers[vehicle]
    ]
    rows = [newest_for(db, vehicle_id) for vehicle_id in ids]
    return [row for row in rows if row is not None and row.number > numbers[row.vehicle_id]]


def unanswered(db: Session) -> list[RevisionRow]:
    """Of each vehicle the newest revision that stands, where no verdict has come."""
    return list(db.exec(_UNANSWERED))


def unheard(db: Session) -> list[Breach]:
    """Declined breaches whose news the broker has not taken."""
    query = select(Breach).where(Breach.state == "declined", col(Breach.heard_at).is_(None))
    return list(db.exec(query.order_by(col(Breach.id))))


def is_due(db: Session, breaches: Sequence[Breach], histories: Sequence[History]) -> list[bool]:
    """Whether each still waits, and its vehicle's chain is as it was; its vehicle must be locked.

    What another worker settled meanwhile, or what was refused meanwhile, is to be decided anew.
    """
    newest = newest_of(db, {breach.vehicle_id for breach in breaches})
    waiting = set(db.exec(_WAITING, params={"ids": [breach.id for breach in breaches]}))
    return [
        breach.id in waiting and _is_as_it_was(db, history, newest.get(breach.vehicle_id))
        for breach, history in zip(breaches, histories, strict=True)
    ]


def _is_as_it_was(db: Session, history: History, newest: RevisionRow | None) -> bool:
    if history.newest is None or newest is None:
        return history.newest is newest
    is_newest = (newest.number, newest.verdict) == (history.newest.number, history.newest.verdict)
    older = {row.id: row.verdict for row in (history.standing, history.base) if row is not None}
    older.pop(newest.id, None)
    if not older or not is_newest:
        return is_newest
    query = select(RevisionRow.id, RevisionRow.verdict).where(col(RevisionRow.id).in_(older))
    return dict(db.exec(query).all()) == older


def settle(db: Session, made: Sequence[RevisionRow], decided: Sequence[Breach], now: float) -> None:
    """Add revisions, and write the state and reason of the breaches they settle.

    Raises OvertakenError when one is settled already: nothing may be committed.
    """
    db.add_all(made)
    db.flush()
    changes = [
        {"row": breach.id, "to": breach.state, "why": breach.reason, "now": now}
        for breach in decided
    ]
    if changes and db.connection().execute(_SETTLE, changes).rowcount != len(changes):
        raise OvertakenError(len(changes))


def vehicles(db: Session, vehicle_ids: Collection[str]) -> dict[str, Vehicle]:
    """These vehicles, by id."""
    rows = db.exec(_VEHICLES, params={"vehicles": list(vehicle_ids)})
    return {row.vehicle_id: row for row in rows}


def breaches_of(db: Session, vehicle_id: str, message_ids: Sequence[str]) -> list[Breach]:
    """The breaches with these ids that have arrived from a vehicle."""
    if not message_ids:
        return []
    query = select(Breach).where(
        Breach.vehicle_id == vehicle_id, col(Breach.message_id).in_(message_ids)
    )
    return list(db.exec(query))


def mark_published(db: Session, ids: Sequence[int], now: float) -> None:
    """The broker has taken these revisions, once more or for the first time."""
    notes.add_pushed(db, ids, now)
    query = (
        select(RevisionRow.vehicle_id, RevisionRow.number, Vehicle.cohort)
        .join(Vehicle, col(Vehicle.vehicle_id) == RevisionRow.vehicle_id)
        .where(col(RevisionRow.id).in_(ids), col(RevisionRow.published_at).is_(None))
    )
    pushed = [
        events.Happened("revision.pushed", vehicle_id, cohort, {"revision": number})
        for vehicle_id, number, cohort in db.exec(query)
    ]
    events.add_many(db, now, pushed)
    db.exec(
        update(RevisionRow)
        .where(col(RevisionRow.id).in_(ids), col(RevisionRow.published_at).is_(None))
        .values(published_at=now)
    )


def mark_heard(db: Session, ids: Sequence[int], now: float) -> None:
    """The broker has taken the news that these breaches were declined."""
    db.exec(
        update(Breach)
        .where(col(Breach.id).in_(ids), col(Breach.heard_at).is_(None))
        .values(heard_at=now)
    )


def remember_key(db: Session, key_id: str, public_key: str) -> None:
    """Keep the public key that will sign, for `verify`."""
    locks.add_missing(db, SigningKey, [{"key_id": key_id, "public_key": public_key}])
