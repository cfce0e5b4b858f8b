"""Roll-outs, their vehicles, and what came of both; every change under one lock.

Must never read more of a fleet than a page at once; what is counted, is counted by the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import case, func, or_, tuple_
from sqlmodel import Session, col, select

from cloud.rollout.plan import Plan
from cloud.store import locks
from cloud.store.rollout_tables import Rollout, RolloutMember
from cloud.store.tables import Release, Trip, Vehicle

AT_WORK: Final = ("running", "soaking", "rolling_back")
REFUSED: Final = ("refused", "rolled_back")
ANSWERED: Final = ("installed", *REFUSED)
LAST_TRIPS: Final = 20
Key = tuple[float, str]


def locked(db: Session) -> None:
    """Be the only one that changes roll-outs, until the transaction ends."""
    locks.exclusive(db, "rollouts")


def due(db: Session, checked_before: float) -> Sequence[str]:
    """Roll-outs at work that were looked at before then, or are in the middle of ordering."""
    is_ordering = col(Rollout.state).in_(("running", "rolling_back"))
    query = select(Rollout.name).where(
        col(Rollout.state).in_(AT_WORK), or_(col(Rollout.checked_at) <= checked_before, is_ordering)
    )
    return db.exec(query.order_by(col(Rollout.checked_at))).all()


def unended(db: Session, states: Collection[str]) -> Sequence[Rollout]:
    """Those in these states."""
    return db.exec(select(Rollout).where(col(Rollout.state).in_(states))).all()


def newest(db: Session, before: Key | None, limit: int) -> Sequence[Rollout]:
    """The one begun last first."""
    keys = (col(Rollout.started_at), col(Rollout.name))
    query = select(Rollout).order_by(*(one.desc() for one in keys)).limit(limit)
    if before is not None:
        query = query.where(tuple_(*keys) < tuple_(*before))
    return db.exec(query).all()


def candidates(
    db: Session, plan: Plan, bundle: str, after: str, limit: int
) -> Sequence[tuple[str, str]]:
    """Vehicles that a plan is for and that run another bundle, by id, with that bundle."""
    query = select(Vehicle.vehicle_id, Vehicle.bundle).where(
        Vehicle.vehicle_id > after, col(Vehicle.bundle).is_not(None), Vehicle.bundle != bundle
    )
    if plan.cohorts:
        query = query.where(col(Vehicle.cohort).in_(plan.cohorts))
    if plan.from_bundle is not None:
        query = query.where(Vehicle.bundle == plan.from_bundle)
    rows = db.exec(query.order_by(Vehicle.vehicle_id).limit(limit))
    return [(vehicle_id, str(runs)) for vehicle_id, runs in rows]


def members_among(db: Session, name: str, vehicle_ids: Collection[str]) -> set[str]:
    """Those of these vehicles that it has ordered for."""
    query = select(RolloutMember.vehicle_id).where(
        RolloutMember.rollout == name, col(RolloutMember.vehicle_id).in_(vehicle_ids)
    )
    return set(db.exec(query))


def last_errors(db: Session, vehicle_id: str, bundle: str) -> Sequence[float]:
    """Of a vehicle's last trips, if they were with this bundle, the errors in volts."""
    query = select(Trip.error_v, Trip.bundle).where(Trip.vehicle_id == vehicle_id)
    newest_first = (col(Trip.odometer_end).desc(), col(Trip.id).desc())
    rows = db.exec(query.order_by(*newest_first).limit(LAST_TRIPS))
    return [error_v for error_v, of in rows if of == bundle]


def new_errors(db: Session, rollout: Rollout, until: float) -> tuple[int, float]:
    """How many trips with its bundle came in (trips_to, until] from its vehicles; summed errors."""
    query = (
        select(func.count(), func.coalesce(func.sum(Trip.error_v), 0.0))
        .select_from(Trip)
        .join(RolloutMember, col(RolloutMember.vehicle_id) == Trip.vehicle_id)
        .where(
            RolloutMember.rollout == rollout.name,
            Trip.bundle == rollout.bundle,
            Trip.received_at > rollout.trips_to,
            Trip.received_at <= until,
        )
    )
    count, total = db.exec(query).one()
    return count, total


def answers(db: Session, name: str) -> Mapping[tuple[int, str], int]:
    """By stage and state how many vehicles; the state of those that said nothing is `ordered`.

    A vehicle that was told to go back counts by what it last said of its new bundle.
    """
    query = (
        select(RolloutMember.stage, Release.state, func.count())
        .select_from(RolloutMember)
        .join(Release, col(Release.id) == RolloutMember.release_id)
        .where(RolloutMember.rollout == name)
        .group_by(col(RolloutMember.stage), col(Release.state))
    )
    return {(stage, said or "ordered"): count for stage, said, count in db.exec(query)}


def sent_back(db: Session, name: str) -> tuple[int, int]:
    """How many vehicles were told to go back, and how many of them say that they did."""
    done = func.sum(case((col(Release.state) == "installed", 1), else_=0))
    query = (
        select(func.count(), done)
        .select_from(RolloutMember)
        .join(Release, col(Release.id) == RolloutMember.back_release_id)
        .where(RolloutMember.rollout == name)
    )
    told, back = db.exec(query).one()
    return told, int(back or 0)


def to_send_back(
    db: Session, name: str, after: str, limit: int
) -> Sequence[tuple[RolloutMember, str | None]]:
    """Its vehicles by id, each with what it said of the release."""
    query = (
        select(RolloutMember, Release.state)
        .join(Release, col(Release.id) == RolloutMember.release_id)
        .where(RolloutMember.rollout == name, RolloutMember.vehicle_id > after)
        .order_by(col(RolloutMember.vehicle_id))
    )
    return [(member, state) for member, state in db.exec(query.limit(limit))]
