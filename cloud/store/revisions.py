"""Breaches that wait, the revisions they bring, and what is still to be told.

A revision *stands* unless its vehicle refused it. Must never touch a revision's content again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, exists, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from cloud.store import events, locks, notes
from cloud.store.membership import among
from cloud.store.tables import Breach, ProvisionalRow, RevisionRow, SigningKey, Vehicle
from common.messages import Provisional, decode

_LATER = aliased(RevisionRow)


# Built once: putting a statement together costs more than running it.
_OF_VEHICLE = col(RevisionRow.vehicle_id) == bindparam("vehicle")
STANDS = func.coalesce(RevisionRow.verdict, "") != "refused"
MAY_RUN = func.coalesce(RevisionRow.approval, "") != "pending"  # nor what was rejected: refused
_NEWEST_FIRST = col(RevisionRow.number).desc()
_UNPUBLISHED = select(RevisionRow).where(
    MAY_RUN,
    col(RevisionRow.published_at).is_(None),
    col(RevisionRow.created_at) <= bindparam("before"),
    ~exists().where(
        col(_LATER.vehicle_id) == RevisionRow.vehicle_id,
        col(_LATER.number) > RevisionRow.number,
        func.coalesce(_LATER.approval, "").not_in(["pending", "rejected"]),
    ),
)
NEWEST_ID = (  # one row of each, however many a vehicle has
    select(_LATER.id)
    .where(col(_LATER.vehicle_id) == Vehicle.vehicle_id)
    .order_by(col(_LATER.number).desc())
    .limit(1)
    .correlate(Vehicle)
    .scalar_subquery()
)
_NEWEST_OF = select(RevisionRow).where(
    col(RevisionRow.id).in_(select(NEWEST_ID).where(among(Vehicle.vehicle_id, "vehicles")))
)
_BY_NUMBER = select(RevisionRow).where(_OF_VEHICLE, col(RevisionRow.number) == bindparam("number"))
_NEWEST_STANDING = select(RevisionRow).where(_OF_VEHICLE, STANDS).order_by(_NEWEST_FIRST).limit(1)
_NEWEST_OF_BUNDLE = _NEWEST_STANDING.where(col(RevisionRow.bundle) == bindparam("bundle"))
_NEWEST_TO_RUN = _NEWEST_OF_BUNDLE.where(MAY_RUN)
_UNANSWERED = select(RevisionRow).where(
    MAY_RUN,
    col(RevisionRow.verdict).is_(None),
    ~exists().where(
        col(_LATER.vehicle_id) == RevisionRow.vehicle_id,
        col(_LATER.number) > RevisionRow.number,
        func.coalesce(_LATER.verdict, "") != "refused",
        func.coalesce(_LATER.approval, "") != "pending",
    ),
)
_TAKEN = (
    select(RevisionRow.vehicle_id, RevisionRow.number, RevisionRow.published_at, Vehicle.cohort)
    .add_columns(
        select(func.max(_LATER.number))
        .where(col(_LATER.vehicle_id) == RevisionRow.vehicle_id)
        .correlate(RevisionRow)
        .scalar_subquery()
    )
    .join(Vehicle, col(Vehicle.vehicle_id) == RevisionRow.vehicle_id)
    .where(among(RevisionRow.id, "ids", numbers=True))
)
_PUBLISH = (
    update(RevisionRow)
    .where(among(RevisionRow.id, "ids", numbers=True), col(RevisionRow.published_at).is_(None))
    .values(published_at=bindparam("now"))
)
_HEARD = (
    update(Breach)
    .where(among(Breach.id, "ids", numbers=True), col(Breach.heard_at).is_(None))
    .values(heard_at=bindparam("now"))
)
_VEHICLES = select(Vehicle).where(among(Vehicle.vehicle_id, "vehicles"))
_REPLACED = (
    select(RevisionRow.vehicle_id, RevisionRow.number, RevisionRow.odometer)
    .where(among(RevisionRow.vehicle_id, "vehicles"), RevisionRow.kind == "replacement")
    .order_by(col(RevisionRow.number))
)


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


def of_lane(lane: int) -> Select[Any]:
    """The ids of a lane's vehicles, for a subquery."""
    return select(Vehicle.vehicle_id).where(Vehicle.lane == lane)


def replacements(db: Session, vehicle_ids: Collection[str]) -> dict[str, Replacement]:
    """Of each of these vehicles whose battery was replaced, the last time."""
    rows = db.connection().execute(_REPLACED, {"vehicles": list(vehicle_ids)})
    return {vehicle_id: Replacement(number, odometer) for vehicle_id, number, odometer in rows}


def newest_of(db: Session, vehicle_ids: Collection[str]) -> dict[str, RevisionRow]:
    """The newest revision of each of these vehicles that has one."""
    rows = db.exec(_NEWEST_OF, params={"vehicles": list(vehicle_ids)})
    return {row.vehicle_id: row for row in rows}


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
        return db.exec(_NEWEST_STANDING.where(MAY_RUN), params={"vehicle": vehicle_id}).first()
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


def unanswered(db: Session, after: str, limit: int) -> Sequence[RevisionRow]:
    """Of each vehicle the newest revision that stands, where no verdict has come.

    Of the next vehicles by id.
    """
    query = _UNANSWERED.where(col(RevisionRow.vehicle_id) > after)
    return db.exec(query.order_by(col(RevisionRow.vehicle_id)).limit(limit)).all()


def unheard(
    db: Session, after: int, limit: int, decided_before: float | None = None
) -> Sequence[Breach]:
    """The next declined breaches by id whose news the broker has not taken."""
    query = select(Breach).where(
        Breach.state == "declined", col(Breach.heard_at).is_(None), col(Breach.id) > after
    )
    if decided_before is not None:
        query = query.where(col(Breach.decided_at) <= decided_before)
    return db.exec(query.order_by(col(Breach.id)).limit(limit)).all()


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


def mark_published(db: Session, ids: Sequence[int], now: float) -> dict[str, int]:
    """The broker has taken these revisions, once more or for the first time.

    Of each of their vehicles the number of the newest revision by now.
    """
    if not ids:
        return {}
    notes.add_pushed(db, ids, now)
    rows = db.connection().execute(_TAKEN, {"ids": ids}).all()
    pushed = [
        events.Happened("revision.pushed", vehicle_id, cohort, {"revision": number})
        for vehicle_id, number, published_at, cohort, _ in rows
        if published_at is None
    ]
    events.add_many(db, now, pushed)
    if pushed:
        db.connection().execute(_PUBLISH, {"ids": ids, "now": now})
    return {row[0]: row[4] for row in rows}


def mark_heard(db: Session, ids: Sequence[int], now: float) -> None:
    """The broker has taken the news that these breaches were declined."""
    if ids:
        db.connection().execute(_HEARD, {"ids": ids, "now": now})


def remember_key(db: Session, key_id: str, public_key: str) -> None:
    """Keep the public key that will sign, for `verify`."""
    locks.add_missing(db, SigningKey, [{"key_id": key_id, "public_key": public_key}])
