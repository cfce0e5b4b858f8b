"""Vehicles whose forecast is due, tasks in stable pages, and every change of a task with its event.

Must never change a task without an event that says who did it, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from cloud.store import events
from cloud.store.maintenance_tables import MaintenanceTask, Outlook
from cloud.store.pages import Cohorts, held
from cloud.store.tables import Vehicle

OPEN: Final = ("proposed", "scheduled")
Key = tuple[float, int]


@dataclass(frozen=True)
class Wanted:
    """Which tasks: each field that is not None must hold; due before `until`."""

    states: Collection[str] | None = None
    kind: str | None = None
    cohort: str | None = None
    until: float | None = None


def after(db: Session, vehicle_id: str, limit: int) -> list[tuple[Vehicle, Outlook | None]]:
    """The next vehicles by id with their last forecast."""
    query = select(Vehicle).where(col(Vehicle.vehicle_id) > vehicle_id)
    rows = db.exec(query.order_by(col(Vehicle.vehicle_id)).limit(limit)).all()
    known = outlooks(db, [row.vehicle_id for row in rows])
    return [(row, known.get(row.vehicle_id)) for row in rows]


def outlooks(db: Session, vehicle_ids: Collection[str]) -> dict[str, Outlook]:
    """The last forecast of each of these vehicles that has one."""
    query = select(Outlook).where(col(Outlook.vehicle_id).in_(vehicle_ids))
    return {row.vehicle_id: row for row in db.exec(query)}


def open_task(db: Session, vehicle_id: str, kind: str) -> MaintenanceTask | None:
    """The one that is proposed or scheduled."""
    query = select(MaintenanceTask).where(
        MaintenanceTask.vehicle_id == vehicle_id,
        MaintenanceTask.kind == kind,
        col(MaintenanceTask.state).in_(OPEN),
    )
    return db.exec(query).first()


def last_settled(db: Session, vehicle_id: str, kind: str) -> MaintenanceTask | None:
    """The last one that a person did or dismissed."""
    query = select(MaintenanceTask).where(
        MaintenanceTask.vehicle_id == vehicle_id,
        MaintenanceTask.kind == kind,
        col(MaintenanceTask.state).in_(("done", "dismissed")),
    )
    return db.exec(query.order_by(col(MaintenanceTask.id).desc()).limit(1)).first()


def page(
    db: Session, after_key: Key | None, limit: int, *, cohorts: Cohorts, wanted: Wanted
) -> Sequence[MaintenanceTask]:
    """Tasks of vehicles of these cohorts (None: all of them), the earliest due first."""
    order = (col(MaintenanceTask.due_at), col(MaintenanceTask.id))
    conditions = held(
        (wanted.states, col(MaintenanceTask.state).in_),
        (wanted.kind, col(MaintenanceTask.kind).__eq__),
        (wanted.until, col(MaintenanceTask.due_at).__lt__),
    )
    query = select(MaintenanceTask).where(*conditions).order_by(*order).limit(limit)
    theirs = held((wanted.cohort, col(Vehicle.cohort).__eq__), (cohorts, col(Vehicle.cohort).in_))
    if theirs:
        ids = select(Vehicle.vehicle_id).where(*theirs)
        query = query.where(col(MaintenanceTask.vehicle_id).in_(ids))
    if after_key is not None:
        query = query.where(tuple_(*order) > tuple_(*after_key))
    return db.exec(query).all()


def history(
    db: Session, after_id: int | None, limit: int, *, vehicle_id: str
) -> Sequence[MaintenanceTask]:
    """Every task of a vehicle, the newest first."""
    query = select(MaintenanceTask).where(MaintenanceTask.vehicle_id == vehicle_id)
    query = query.order_by(col(MaintenanceTask.id).desc()).limit(limit)
    if after_id is not None:
        query = query.where(col(MaintenanceTask.id) < after_id)
    return db.exec(query).all()


def change(
    db: Session,
    vehicle: Vehicle,
    task: MaintenanceTask,
    event: str,
    *,
    now: float,
    actor: str | None = None,
    **to: Any,
) -> None:
    """Write the fields `to` into the task (new or known), and what happened."""
    for name, value in to.items():
        setattr(task, name, value)
    task.actor, task.changed_at, task.changes = actor, now, task.changes + 1
    db.add(task)
    db.flush()
    detail = {"task": task.id, "kind": task.kind, "state": task.state, "due_at": task.due_at}
    events.add(
        db,
        f"maintenance.{event}",
        now,
        vehicle_id=vehicle.vehicle_id,
        cohort=vehicle.cohort,
        actor=actor,
        detail=detail | {"why": task.reason},
    )
