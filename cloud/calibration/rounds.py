"""One round of calibrations: what is pending, what it brings, all of it committed together.

Must never tell anybody: what is committed comes back as outcomes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Final

from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.calibration import figures
from cloud.calibration.battery_starts import BatteryStarts
from cloud.calibration.fleet_priors import FleetPriors
from cloud.calibration.pinning import Pinning
from cloud.calibration.poison import (
    MAX_TRIES,
    Poison,
    apart,
    count_try,
    poison,
    quarantine,
    suspect,
)
from cloud.calibration.replays import Replays
from cloud.calibration.revising import Author, case_of, inputs_of, revision_of, signed_new, stored
from cloud.calibration.roll_backs import RollBacks
from cloud.errors import OvertakenError
from cloud.policy import DEFAULT, Policy, refusal
from cloud.store import (
    approvals,
    events,
    evidence,
    pending_breaches,
    pinned,
    policies,
)
from cloud.store.assessed import ASSESSED, Assessed
from cloud.store.audit_tables import Pin
from cloud.store.database import Store
from cloud.store.new_revisions import NewRevision
from cloud.store.pending_breaches import History, Pending
from cloud.store.tables import Breach, RevisionRow
from cloud.traces.archive import Archive
from common.calibration import Settings
from common.calibrator import Case, Decision, Decline, MakeRevision, decide
from common.errors import TransientError
from common.estimate_state import judge
from common.fleet_prior import FleetPrior
from common.manifest import Manifest
from common.revision import Revision

log = logging.getLogger(__name__)

VEHICLES_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Item:
    """A pending breach and what it is judged against."""

    breach: Breach
    history: History
    prior: FleetPrior | None
    policy: Policy = DEFAULT
    pin: Pin | None = None


@dataclass(frozen=True)
class Stages:
    """When the round of a breach was decided, signed and committed."""

    decided: float
    signed: float
    committed: float


@dataclass(frozen=True)
class Outcome:
    """What was committed for a breach: a revision, or (None) the reason in `breach.reason`."""

    breach: Breach
    row: NewRevision | None
    at: Stages


@dataclass(frozen=True)
class _Made:
    """What was decided on an item, and its revision and the row of it, if it brings one."""

    item: Item
    decision: Decision
    revision: Revision | None = None
    row: NewRevision | None = None


class Calibrations:
    """Rounds over the pending breaches of a store; one thread only."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        author: Author,
        clock: Callable[[], float],
        archive: Archive | None = None,
    ) -> None:
        self._store, self._catalogue, self._author = store, catalogue, author
        self._clock = clock
        self._known_policies: tuple[int, Mapping[str, Policy]] = (0, {})  # as of a version
        self._priors = FleetPriors(store, catalogue, clock)
        self._starts = BatteryStarts(store, catalogue, author, self._priors, clock)
        self._roll_backs = RollBacks(store, catalogue, author, clock)
        self._pinning = Pinning(store, author, clock)
        self._replays = Replays(store, catalogue, author, self._priors, clock, archive)

    def starts(self, lane: int | None = None) -> list[RevisionRow]:
        """New vehicles, replaced batteries, what operators ordered; of one lane, if it is given.

        Raises StoreUnavailableError.
        """
        parts = (self._starts, self._roll_backs, self._pinning, self._replays)
        return [row for part in parts for row in part.round(lane)]

    def round(self, lanes: Sequence[int] | None = None) -> list[Outcome]:
        """Settle the next breach of up to VEHICLES_AT_ONCE vehicles; empty: none is pending.

        Of the vehicles of these lanes, if they are given. Raises StoreUnavailableError,
        OvertakenError.
        """
        outcomes = []
        for items in self._next(lanes):
            bundle = items[0].breach.bundle
            decisions = apart(partial(self._decide, bundle), items)
            outcomes += self._commit(items, decisions)
        return outcomes

    def learn(self, outcomes: Sequence[Outcome]) -> bool:
        """After a round, once its outcomes are told: whether the fleet teaches something new.

        Raises StoreUnavailableError.
        """
        return self._priors.grow(outcome.row for outcome in outcomes if outcome.row is not None)

    def suspect(self, lane: int) -> None:
        """A worker ended over this lane. Raises StoreUnavailableError."""
        with self._store.write() as db:
            suspect(db, lane, self._catalogue.hashes, VEHICLES_AT_ONCE)

    def _next(self, lanes: Sequence[int] | None) -> Iterator[list[Item]]:
        """By bundle; what is suspected of having ended a worker by itself, and last."""
        with self._store.read() as db:
            breaches = pending_breaches.next_breaches(
                db, self._catalogue.hashes, VEHICLES_AT_ONCE, lanes
            )
            found = pending_breaches.with_histories(db, breaches)
            bundles = dict.fromkeys(breach.bundle for breach in breaches)
            priors = {bundle: self._priors.newest(db, bundle) for bundle in bundles}
            rules = self._rules(db, found)
        items = [
            Item(
                one.breach,
                one.history,
                priors[one.breach.bundle],
                rules.get(one.cohort, DEFAULT),
                one.pin,
            )
            for one in found
        ]
        for bundle in bundles:
            same = [item for item in items if item.breach.bundle == bundle]
            trusted = [item for item in same if not item.breach.tries]
            if trusted:
                yield trusted
        for item in items:
            if item.breach.tries:
                item.breach.tries = count_try(self._store, item.breach)
                yield [item]

    def _rules(self, db: Session, found: Sequence[Pending]) -> Mapping[str, Policy]:
        """By cohort; read again whenever there is a new version of any."""
        newest = max((one.policies for one in found), default=0)
        if newest != self._known_policies[0]:
            self._known_policies = newest, policies.holding(db)
        return self._known_policies[1]

    def _decide(self, bundle: str, items: Sequence[Item]) -> list[Decision]:
        if items[0].breach.tries > MAX_TRIES:
            return [poison(f"{items[0].breach.tries - 1} workers ended over it")]
        manifest, model = self._catalogue.manifest(bundle), self._catalogue.model(bundle)
        prepared = [_prepared(item, manifest) for item in items]
        cases = [case for case in prepared if isinstance(case, Case)]
        made = iter(decide(cases, model, manifest, Settings()))
        return [known if isinstance(known, Decline) else next(made) for known in prepared]

    def _commit(self, items: Sequence[Item], decisions: Sequence[Decision]) -> list[Outcome]:
        """All in one transaction; when one of them spoils it, each in its own."""
        try:
            return self._commit_once(items, decisions)
        except (TransientError, OvertakenError):
            raise
        except Exception as error:
            if len(items) > 1:
                pairs = zip(items, decisions, strict=True)
                return [made for item, one in pairs for made in self._commit([item], [one])]
            log.exception(
                "breach_not_calibrated vehicle_id=%s message_id=%s",
                items[0].breach.vehicle_id, items[0].breach.message_id,
            )  # fmt: skip
            return self._commit_once(items, [Decline(f"it could not be stored: {error}"[:256])])

    def _commit_once(self, items: Sequence[Item], decisions: Sequence[Decision]) -> list[Outcome]:
        """What was settled or refused since it was read is left for the next round."""
        now = self._clock()
        made = [self._made(item, one, now) for item, one in zip(items, decisions, strict=True)]
        signed = self._clock()
        with self._store.write() as db:
            vehicles = ASSESSED.locked(db, {item.breach.vehicle_id for item in items})
            due = pending_breaches.is_due(
                db, [item.breach for item in items], [item.history for item in items]
            )
            made = list(compress(made, due))
            if not made:
                raise OvertakenError(len(items))
            rows = [one.row for one in made if one.row is not None]
            pending_breaches.settle(db, rows, [one.item.breach for one in made], now)
            for one in made:
                if isinstance(one.decision, Poison):
                    quarantine(db, one.item.breach, one.decision, now)
            events.add_many(db, now, [_happened(one, vehicles) for one in made])
            self._note_estimates(vehicles, made, now)
            ASSESSED.write(db, [vehicles[one.item.breach.vehicle_id] for one in made])
        at = Stages(now, signed, self._clock())
        return [Outcome(one.item.breach, one.row, at) for one in made]

    def _made(self, item: Item, decision: Decision, now: float) -> _Made:
        item.breach.state = "declined" if isinstance(decision, Decline) else "calibrated"
        item.breach.reason = decision.reason if isinstance(decision, Decline) else None
        if isinstance(decision, Decline):
            return _Made(item, decision)
        breach, history, prior = item.breach, item.history, item.prior
        revision = revision_of(breach, history, decision, self._author, now, prior)
        row = signed_new(revision, self._author, inputs_of(breach, history, prior))
        row.approval = approvals.PENDING if item.policy.calibration == "approval" else None
        return _Made(item, decision, revision, row)

    def _note_estimates(
        self, vehicles: Mapping[str, Assessed], made: Sequence[_Made], now: float
    ) -> None:
        known = [(vehicles[one.item.breach.vehicle_id], one) for one in made]
        for vehicle, one in known:
            _count(vehicle, one.item, one.decision)
        bundle = made[0].item.breach.bundle
        try:
            self._judge(bundle, known, now)
        except Exception:  # a state that cannot be judged keeps nobody from a revision
            log.exception("estimates_not_judged bundle=%s", bundle)
        new = [(vehicle, one.revision) for vehicle, one in known if one.revision is not None]
        try:
            figures.note(new, self._catalogue.model(bundle), self._catalogue.manifest(bundle))
        except Exception:  # nor a figure that cannot be read
            log.exception("figures_not_noted bundle=%s", bundle)

    def _judge(self, bundle: str, known: Sequence[tuple[Assessed, _Made]], now: float) -> None:
        standing = [(vehicle, _standing(one)) for vehicle, one in known]
        found = evidence.gather_all(standing, self._catalogue.manifest(bundle), now)
        for (vehicle, _), seen in zip(standing, found, strict=True):
            vehicle.estimate_state = judge(vehicle.estimate_state, seen).state


def _standing(made: _Made) -> Revision | None:
    base = made.item.history.base
    return made.revision or (stored(base.content) if base else None)


def _prepared(item: Item, manifest: Manifest) -> Case | Decline:
    if item.pin is not None:
        return Decline(pinned.reason(item.pin), blames_estimate=False)
    reason = refusal(item.policy, item.breach.error_v)
    if reason is not None:
        return Decline(reason, blames_estimate=False)
    return case_of(item.breach, item.history, manifest, item.prior)


def _happened(made: _Made, vehicles: Mapping[str, Assessed]) -> events.Happened:
    breach, row = made.item.breach, made.row
    vehicle = vehicles.get(breach.vehicle_id)
    cohort = vehicle.cohort if vehicle else None
    what: dict[str, object] = {"trip": breach.trip_id, "error_v": breach.error_v}
    if row is None:
        what |= {"reason": breach.reason}
        return events.Happened("breach.declined", breach.vehicle_id, cohort, what)
    what |= {"revision": row.number, "cause": row.kind, "approval": row.approval}
    return events.Happened("revision.made", breach.vehicle_id, cohort, what)


def _count(vehicle: Assessed, item: Item, decision: Decision) -> None:
    if isinstance(decision, MakeRevision):
        vehicle.calibrations = vehicle.calibrations + 1 if item.history.base else 1
        vehicle.started = True
    else:
        vehicle.failures += decision.blames_estimate
