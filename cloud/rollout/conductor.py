"""Carry roll-outs out: order releases for the vehicles whose turn it is, count answers, halt.

A turn is bounded: a page of vehicles, a minute of trips. Must never order for a vehicle before its
stage, nor move a roll-out that has stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec
from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.push.bundle_files import keep
from cloud.rollout.deciding import Halt, State, Tally, next_step
from cloud.rollout.plan import Plan, place
from cloud.store import bundle_registry, events, releases, rollouts
from cloud.store.database import Store
from cloud.store.rollout_tables import Rollout, RolloutMember
from cloud.store.tables import Release
from common.release import RELEASE_TEXT

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""How often answers and trips are counted."""
SCANNED_AT_ONCE: Final = 1000
ORDERED_AT_ONCE: Final = 100
SETTLED_S: Final = 5.0
"""A trip of now may not be committed yet."""
TRIPS_S: Final = 60.0
"""So much of what came in is counted at once."""


class Rollouts:
    """Of one service; used from the worker's thread, by several workers at once."""

    def __init__(self, store: Store, catalogue: Catalogue, clock: Callable[[], float]) -> None:
        self._store, self._catalogue, self._clock = store, catalogue, clock

    def turn(self) -> bool:
        """Do what is due; whether there may be more at once. Raises StoreUnavailableError."""
        with self._store.read() as db:
            names = rollouts.due(db, self._clock() - LOOK_S)
        more = [self._turn_of(name) for name in names]  # each has its turn
        return any(more)

    def _turn_of(self, name: str) -> bool:
        now = self._clock()
        with self._store.write() as db:
            rollouts.locked(db)
            row = db.get(Rollout, name, populate_existing=True)
            if row is None:
                return False
            if row.state == "rolling_back":
                return self._send_back(db, row, now)
            if row.checked_at <= now - LOOK_S:
                return self._judge(db, row, now)
            return row.state == "running" and self._order(db, row, now)

    def _judge(self, db: Session, row: Rollout, now: float) -> bool:
        if _count_trips(db, row, now):
            return True
        row.checked_at = now
        plan, state = plan_of(row), state_of(row)
        step = next_step(
            plan, state, row.stage, row.since, tally_of(db, row), now, is_left=state == "running"
        )
        match step:
            case Halt():
                row.halt = step.kind
                say(db, row, "halted", step.why, now)
                log.warning(
                    "rollout_halted rollout=%s kind=%s why=%r", row.name, step.kind, step.why
                )
            case "order":
                return self._order(db, row, now)
            case "next_stage":
                row.stage, row.cursor = row.stage + 1, ""
                say(db, row, "running", f"stage {row.stage + 1} begins", now)
                return True
            case "finish":
                say(db, row, "finished", "every stage has been soaked", now)
        return False

    def _order(self, db: Session, row: Rollout, now: float) -> bool:
        """A page of the stage's vehicles; whether there may be more of them."""
        plan = plan_of(row)
        page = rollouts.candidates(db, plan, row.bundle, row.cursor, SCANNED_AT_ONCE)
        percent = plan.stages_percent[row.stage]
        mine = [one for one in page if place(row.name, one[0]) < percent]
        known = rollouts.members_among(db, row.name, [vehicle_id for vehicle_id, _ in mine])
        wanted = [one for one in mine if one[0] not in known]
        for vehicle_id, runs in wanted[:ORDERED_AT_ONCE]:
            self._order_one(db, row, vehicle_id, runs, now)
        if len(wanted) > ORDERED_AT_ONCE:
            row.cursor = wanted[ORDERED_AT_ONCE - 1][0]
            return True
        if len(page) == SCANNED_AT_ONCE:
            row.cursor = page[-1][0]
            return True
        row.since = now
        say(db, row, "soaking", f"stage {row.stage + 1} is ordered", now)
        return False

    def _order_one(self, db: Session, row: Rollout, vehicle_id: str, runs: str, now: float) -> None:
        self._keep(db, runs, now)
        errors_v = rollouts.last_errors(db, vehicle_id, runs)
        row.old_trips += len(errors_v)
        row.old_error_sum_v += sum(errors_v)
        release = _order(db, vehicle_id, row.bundle, f"{row.name}: {row.started_why}", now)
        db.add(
            RolloutMember(
                rollout=row.name,
                vehicle_id=vehicle_id,
                stage=row.stage,
                from_bundle=runs,
                release_id=release.id or 0,
                ordered_at=now,
            )
        )

    def _keep(self, db: Session, sha256: str, now: float) -> None:
        """What a vehicle runs must be here, so that it can be brought back."""
        bundle = self._catalogue.get(sha256)
        if bundle is None:
            return
        try:
            keep(db, bundle, now)
        except OSError as error:
            log.warning("bundle_not_kept bundle=%s error=%r", sha256[:12], str(error))

    def _send_back(self, db: Session, row: Rollout, now: float) -> bool:
        """A page of those that took it, or may still; whether there may be more of them."""
        page = rollouts.to_send_back(db, row.name, row.cursor, ORDERED_AT_ONCE)
        for member, said in page:
            if said in rollouts.REFUSED or member.back_release_id is not None:
                continue
            if bundle_registry.is_kept(db, member.from_bundle):
                why = f"{row.name} is rolled back: {row.why}"
                release = _order(db, member.vehicle_id, member.from_bundle, why, now)
                member.back_release_id = release.id
        if len(page) == ORDERED_AT_ONCE:
            row.cursor = page[-1][0].vehicle_id
            return True
        say(db, row, "rolled_back", row.why, now)
        return False


def plan_of(row: Rollout) -> Plan:
    """What it is to do."""
    return msgspec.json.decode(row.plan, type=Plan)


def state_of(row: Rollout) -> State:
    """Its state."""
    return msgspec.convert(row.state, State)  # type: ignore[no-any-return]


def tally_of(db: Session, row: Rollout) -> Tally:
    """What has come in, as of this transaction."""
    found = rollouts.answers(db, row.name)
    counted = Tally(
        ordered=sum(found.values()),
        answers=sum(n for (_, said), n in found.items() if said in rollouts.ANSWERED),
        refused=sum(n for (_, said), n in found.items() if said in rollouts.REFUSED),
    )
    return replace(
        counted,
        seen_answers=row.seen_answers,
        seen_refused=row.seen_refused,
        trips=row.trips,
        error_sum_v=row.error_sum_v,
        old_trips=row.old_trips,
        old_error_sum_v=row.old_error_sum_v,
    )


def say(
    db: Session, row: Rollout, state: State, why: str, now: float, actor: str | None = None
) -> None:
    """It is in another state; each of its cohorts learns of it."""
    row.state, row.why, row.state_at, row.actor = state, why, now, actor
    detail = {"rollout": row.name, "bundle": row.bundle, "stage": row.stage + 1, "why": why}
    for cohort in plan_of(row).cohorts or [None]:  # type: ignore[list-item]
        events.add(db, f"rollout.{state}", now, cohort=cohort, actor=actor, detail=detail)


def _order(db: Session, vehicle_id: str, bundle: str, why: str, now: float) -> Release:
    wanted = Release(
        vehicle_id=vehicle_id, bundle=bundle, reason=why[:RELEASE_TEXT], ordered_at=now
    )
    return releases.order(db, wanted)


def _count_trips(db: Session, row: Rollout, now: float) -> bool:
    """Whether more have come in than are counted at once."""
    settled = now - SETTLED_S
    if settled <= row.trips_to:
        return False
    until = min(settled, row.trips_to + TRIPS_S)
    count, total_v = rollouts.new_errors(db, row, until)
    row.trips, row.error_sum_v, row.trips_to = row.trips + count, row.error_sum_v + total_v, until
    return until < settled
