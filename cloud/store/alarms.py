"""Alarms: what vehicles give cause for, page by page, and what operators say of them.

Must never raise an alarm a second time that is on already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, tuple_
from sqlmodel import Session, col, select

from cloud.alerts.conditions import Cause, Facts
from cloud.store import events
from cloud.store.alert_tables import Alarm
from cloud.store.tables import RevisionRow, Vehicle


def facts_after(db: Session, vehicle_id: str, limit: int) -> list[Facts]:
    """Of the next vehicles by id."""
    columns: Any = (
        Vehicle.vehicle_id, Vehicle.cohort, Vehicle.soh, Vehicle.soh_std,
        Vehicle.failures, Vehicle.last_seen_at, Vehicle.estimate_state,
    )  # fmt: skip
    query = select(*columns).where(col(Vehicle.vehicle_id) > vehicle_id)
    rows = db.exec(query.order_by(col(Vehicle.vehicle_id)).limit(limit)).all()
    refused = _refused(db, [row[0] for row in rows])
    return [Facts(*row, refused.get(row[0])) for row in rows]  # type: ignore[call-arg]


def of_vehicles(db: Session, vehicle_ids: Collection[str]) -> dict[str, dict[str, Alarm]]:
    """By vehicle and type."""
    found: dict[str, dict[str, Alarm]] = {}
    for row in db.exec(select(Alarm).where(col(Alarm.vehicle_id).in_(vehicle_ids))):
        found.setdefault(row.vehicle_id, {})[row.type] = row
    return found


def settle(
    db: Session, facts: Facts, known: dict[str, Alarm], causes: Iterable[Cause], now: float
) -> None:
    """Raise what has a cause and is off, clear what is on without one."""
    wanted: dict[str, Cause] = {cause.type: cause for cause in causes}
    for kind, cause in wanted.items():
        row = known.get(kind)
        if row is not None and row.active:
            row.severity, row.reason = cause.severity, cause.reason
            continue
        if row is None:
            row = Alarm(
                vehicle_id=facts.vehicle_id, type=kind, severity=cause.severity,
                reason=cause.reason, active=True, acknowledged=False, raised_at=now, times=0,
            )  # fmt: skip
        row.severity, row.reason = cause.severity, cause.reason
        row.active, row.acknowledged, row.raised_at, row.cleared_at = True, False, now, None
        row.acknowledged_at = row.acknowledged_by = None
        row.times += 1
        db.add(row)
        _tell(db, "alarm.raised", facts.cohort, row, now)
    for row in known.values():
        if row.active and row.type not in wanted:
            row.active, row.cleared_at = False, now
            _tell(db, "alarm.cleared", facts.cohort, row, now)


def differs(known: dict[str, Alarm], causes: Iterable[Cause]) -> bool:
    """Whether `settle` would raise, clear or regrade anything."""
    on = {(row.type, row.severity) for row in known.values() if row.active}
    return on != {(cause.type, cause.severity) for cause in causes}


def page(
    db: Session,
    before: tuple[float, int] | None,
    limit: int,
    *,
    where: Sequence[ColumnElement[bool]] = (),
    cohorts: Collection[str] | None = None,
) -> Sequence[Alarm]:
    """The last raised first; `before` is the key of the page before's last."""
    query = select(Alarm).where(*where)
    if before is not None:
        at, alarm_id = before
        same_time = (col(Alarm.raised_at) == at) & (col(Alarm.id) < alarm_id)
        query = query.where((col(Alarm.raised_at) < at) | same_time)
    if cohorts is not None:
        seen = select(Vehicle.vehicle_id).where(col(Vehicle.cohort).in_(cohorts))
        query = query.where(col(Alarm.vehicle_id).in_(seen))
    last_raised_first = (col(Alarm.raised_at).desc(), col(Alarm.id).desc())
    return db.exec(query.order_by(*last_raised_first).limit(limit)).all()


def key_of(row: Alarm) -> tuple[float, int]:
    """By what a page is sorted."""
    return row.raised_at, row.id or 0


def _tell(db: Session, kind: str, cohort: str, row: Alarm, now: float) -> None:
    detail = {"type": row.type, "severity": row.severity, "reason": row.reason}
    events.add(db, kind, now, vehicle_id=row.vehicle_id, cohort=cohort, detail=detail)


def _refused(db: Session, vehicle_ids: Collection[str]) -> dict[str, str]:
    """Why vehicles refused their newest revision; what an operator rejected is no alarm."""
    last = (
        select(RevisionRow.vehicle_id, func.max(RevisionRow.number))
        .where(col(RevisionRow.vehicle_id).in_(vehicle_ids))
        .group_by(col(RevisionRow.vehicle_id))
    )
    query = select(RevisionRow.vehicle_id, RevisionRow.verdict_reason).where(
        tuple_(col(RevisionRow.vehicle_id), col(RevisionRow.number)).in_(last),
        RevisionRow.verdict == "refused",
        func.coalesce(RevisionRow.approval, "") != "rejected",
    )
    return {vehicle_id: reason or "no reason" for vehicle_id, reason in db.exec(query)}
