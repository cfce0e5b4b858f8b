"""Forecast one vehicle after the other, and keep its battery's task in step.

A vehicle is due after a revision, when its cohort's policy says otherwise than before, and every
week, since its mileage changes. Must never take more than a small share of a processor, nor write
of a vehicle without holding it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.maintenance.proposing import Crossing, Span, decide
from cloud.mileage import DAY_S, MOST_TRIPS, last_moment, mileage_of
from cloud.policy import DEFAULT, Policy
from cloud.store import evidence, locks, maintenance, pages, policies, revisions
from cloud.store.database import Store
from cloud.store.maintenance_tables import MaintenanceTask, Outlook
from cloud.store.tables import Trip, Vehicle
from common.errors import NoHealthError, QuestionError
from common.forecast import Forecast, forecast
from common.messages import MAX_ODOMETER
from common.revision import decode_revision
from common.sampling import Interval

KIND: Final = "battery_health"
LEVEL: Final = 0.8  # from 10 to 90 %
PAGE: Final = 500
EVERY_S: Final = 30.0
AGAIN_S: Final = 7 * DAY_S
REST: Final = 9.0
"""For each second of forecasting so many of rest: a tenth of a processor at most."""
YEAR_9999: Final = 253_370_764_800.0


class Planner:
    """`turn()` from one thread; several processes may each have one."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        clock: Callable[[], float],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._catalogue = store, catalogue
        self._clock, self._elapsed = clock, elapsed
        self._after, self._rests_until = "", 0.0
        self._due: deque[str] = deque()  # of the page before `_after`

    def turn(self) -> bool:
        """Forecast the next vehicle that is due; whether one was. Raises StoreUnavailableError."""
        began = self._elapsed()
        if began < self._rests_until:
            return False
        now = self._clock()
        if not self._due:
            self._look(began, now)
        if not self._due:
            return False
        self._plan(self._due.popleft(), now)
        ended = self._elapsed()
        self._rests_until = ended + REST * (ended - began)
        return True

    def wake(self) -> None:
        """Look at once."""
        self._rests_until = 0.0

    def _look(self, began: float, now: float) -> None:
        """At the next page of vehicles; after the last one it rests, and begins anew."""
        with self._store.read() as db:
            found = maintenance.after(db, self._after, PAGE)
            holding = policies.holding(db)
        self._due.extend(
            vehicle.vehicle_id
            for vehicle, known in found
            if self._catalogue.find(vehicle.bundle)
            and _is_due(vehicle, known, holding.get(vehicle.cohort, DEFAULT), now)
        )
        self._after = found[-1][0].vehicle_id if len(found) == PAGE else ""
        if not self._after:
            self._rests_until = began + EVERY_S

    def _plan(self, vehicle_id: str, now: float) -> None:
        with self._store.read() as db:
            vehicle = db.get_one(Vehicle, vehicle_id)
            policy = policies.holding(db).get(vehicle.cohort, DEFAULT)
            if self._catalogue.find(vehicle.bundle) is None:
                return  # it has taken another meanwhile
            outlook = self._outlook(db, vehicle, policy, now)
        with self._store.write() as db:
            vehicle = locks.vehicles(db, [vehicle_id])[vehicle_id]
            db.merge(outlook)
            if outlook.problem is None:
                _settle(db, vehicle, outlook, now)

    def _outlook(self, db: Session, vehicle: Vehicle, policy: Policy, now: float) -> Outlook:
        vehicle_id = vehicle.vehicle_id
        outlook = Outlook(
            vehicle_id=vehicle_id,
            revision=vehicle.figures_revision or 0,
            made_at=now,
            health_limit=policy.health_limit,
            horizon_days=policy.forecast_horizon_days,
        )
        row = revisions.newest_standing(db, vehicle_id, vehicle.bundle)
        trips = pages.trips(db, None, MOST_TRIPS, vehicle_id=vehicle_id)
        mileage = mileage_of(trips)
        if row is None or mileage is None:
            missing = "no revision" if row is None else "too few trips to know its mileage"
            outlook.problem = f"it has {missing} yet"
            return outlook
        manifest = self._catalogue.manifest(row.bundle)
        estimate = evidence.estimate_at(decode_revision(row.content), manifest, vehicle.odometer)
        horizon = min(policy.forecast_horizon_days * mileage.per_day, MAX_ODOMETER)
        try:
            found = forecast(
                estimate,
                policy.health_limit,
                horizon,
                self._catalogue.model(row.bundle),
                manifest,
                np.random.default_rng(0),
                mileage,
                LEVEL,
            )
        except (NoHealthError, QuestionError) as error:
            outlook.problem = str(error)
            return outlook
        _note(outlook, found, trips[0], now)
        return outlook


def _is_due(vehicle: Vehicle, known: Outlook | None, policy: Policy, now: float) -> bool:
    if vehicle.figures_revision is None:
        return False
    return (
        known is None
        or known.revision != vehicle.figures_revision
        or known.health_limit != policy.health_limit
        or known.horizon_days != policy.forecast_horizon_days
        or now - known.made_at > AGAIN_S
    )


def _note(outlook: Outlook, found: Forecast, last: Trip, now: float) -> None:
    here = min(last_moment(last), now)
    days = found.days
    outlook.odometer, outlook.odometer_low, outlook.odometer_high = _ends(found.odometer)
    if days is not None:
        outlook.at, outlook.at_low, outlook.at_high = (_date(one, here) for one in _ends(days))
    if outlook.at is None:
        outlook.odometer = None
    outlook.never_share = found.never_share


def _ends(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return interval.value, interval.low, interval.high


def _date(days: float | None, here: float) -> float | None:
    at = None if days is None else here + days * DAY_S
    return at if at is not None and at < YEAR_9999 else None


def _settle(db: Session, vehicle: Vehicle, outlook: Outlook, now: float) -> None:
    """Raises nothing: what a person has scheduled is theirs, and stays."""
    task = maintenance.open_task(db, vehicle.vehicle_id, KIND)
    if task is not None and task.state == "scheduled":
        return
    new = Crossing(
        Span(outlook.odometer, outlook.odometer_low, outlook.odometer_high),
        Span(outlook.at, outlook.at_low, outlook.at_high),
        outlook.never_share or 0.0,
    )
    decision = decide(new, _crossing(task), _crossing(_settled(db, vehicle.vehicle_id)))
    if decision == "withdraw" and task is not None:
        reason = f"health is no longer forecast to fall to {outlook.health_limit:g}"
        maintenance.change(
            db, vehicle, task, "withdrawn", now=now, state="withdrawn", reason=reason
        )
    elif decision == "redate" and task is not None:
        maintenance.change(db, vehicle, task, "redated", now=now, **_due(outlook))
    elif decision == "propose":
        fields = _due(outlook) | {"made_at": now, "changed_at": now}
        task = MaintenanceTask(vehicle_id=vehicle.vehicle_id, kind=KIND, state="proposed", **fields)
        maintenance.change(db, vehicle, task, "proposed", now=now)


def _due(outlook: Outlook) -> dict[str, Any]:
    return {
        "due_at": outlook.at,
        "due_at_low": outlook.at_low,
        "due_at_high": outlook.at_high,
        "due_odometer": outlook.odometer,
        "due_odometer_low": outlook.odometer_low,
        "due_odometer_high": outlook.odometer_high,
        "revision": outlook.revision,
        "reason": f"health is forecast to fall to {outlook.health_limit:g}",
    }


def _settled(db: Session, vehicle_id: str) -> MaintenanceTask | None:
    """What was settled of a battery that is not there any more counts no longer."""
    task = maintenance.last_settled(db, vehicle_id, KIND)
    replaced = revisions.replacements(db, [vehicle_id]).get(vehicle_id)
    is_gone = task is not None and replaced is not None and replaced.number > task.revision
    return None if is_gone else task


def _crossing(task: MaintenanceTask | None) -> Crossing | None:
    if task is None:
        return None
    return Crossing(
        Span(task.due_odometer, task.due_odometer_low, task.due_odometer_high),
        Span(task.due_at, task.due_at_low, task.due_at_high),
    )
