"""What people tell a roll-out: begin, pause, go on, end, bring back; each with a reason.

Must never order a release: the conductor does, in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.errors import RolloutError
from cloud.push.bundle_files import keep
from cloud.rollout.conductor import plan_of, say, tally_of
from cloud.rollout.deciding import COMMANDS, UNENDED, Verb
from cloud.rollout.plan import Plan, overlap, stage_of
from cloud.store import bundle_registry, rollouts
from cloud.store.rollout_tables import Rollout

PAGE = 10_000


@dataclass(frozen=True)
class Word:
    """Who says something, why and when."""

    actor: str
    why: str
    at: float


def sizes(db: Session, name: str, plan: Plan, bundle: str) -> list[int]:
    """How many vehicles each stage has now: the whole fleet is walked, page by page."""
    found, after = [0] * len(plan.stages_percent), ""
    while True:
        page = rollouts.candidates(db, plan, bundle, after, PAGE)
        for vehicle_id, _ in page:
            stage = stage_of(plan, name, vehicle_id)
            if stage is not None:
                found[stage] += 1
        if len(page) < PAGE:
            return found
        after = page[-1][0]


def start(
    db: Session,
    catalogue: Catalogue,
    name: str,
    bundle: str,
    plan: Plan,
    planned: Sequence[int],
    word: Word,
) -> Rollout:
    """Begin a roll-out of a bundle that is known. Raises RolloutError, OSError."""
    rollouts.locked(db)
    if db.get(Rollout, name) is not None:
        raise RolloutError(name, "there is one of that name already, and names are used once")
    if not planned[0]:
        problem = "its first stage has none of the vehicles: give it a larger share"
        raise RolloutError(name, problem)
    for other in rollouts.unended(db, UNENDED):
        if overlap(plan, plan_of(other)):
            raise RolloutError(name, f"{other.name!r} is for the same vehicles and has not ended")
    configured = catalogue.get(bundle)
    if not bundle_registry.is_kept(db, bundle) and configured is not None:
        keep(db, configured, word.at)
    row = Rollout(
        name=name,
        bundle=bundle,
        plan=msgspec.json.encode(plan),
        planned=msgspec.json.encode(list(planned)),
        state="running",
        since=word.at,
        why=word.why,
        state_at=word.at,
        started_by=word.actor,
        started_why=word.why,
        started_at=word.at,
        trips_to=word.at,
    )
    db.add(row)
    say(db, row, "running", word.why, word.at, word.actor)
    return row


def tell(db: Session, row: Rollout, verb: Verb, word: Word) -> None:
    """Let an operator's word count; `row` was read under the lock. Raises RolloutError."""
    before, after = COMMANDS[verb]
    if row.state not in before:
        told = verb.replace("_", " ")
        raise RolloutError(row.name, f"it is {row.state.replace('_', ' ')}: it cannot {told} now")
    if verb == "resume":
        _forgive(db, row, word.at)
    if verb in {"resume", "roll_back"}:
        row.cursor = ""
    say(db, row, after, word.why, word.at, word.actor)


def _forgive(db: Session, row: Rollout, now: float) -> None:
    """What the operator has seen does not halt it again; the stage is soaked from now on."""
    tally = tally_of(db, row)
    row.seen_answers, row.seen_refused = tally.answers, tally.refused
    row.trips, row.error_sum_v, row.trips_to = 0, 0.0, now
    row.since, row.halt = now, None
