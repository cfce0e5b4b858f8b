"""Start the agent on what a power cut left, and hold it to what was promised before the cut.

By the agent's public doors alone: what it offers, what it says in its status, what it applies. Must
never look into its files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from bench.edge.agent_under_test import VEHICLE, Rig, running
from bench.edge.disk_changes import Mark
from bench.edge.made_up_car import Car, breaches, started_at, theta, trip_id
from bench.edge.power_life import HALF, is_good, revision, revision_after
from common.messages import Receipt, encode, message_id
from edge_agent.config import Config

REPLAYED: Final = 6
OLD_REVISIONS: Final = 4
KINDS: Final = ("trip", "breach")


@dataclass
class Promised:
    """What was true for the world outside when the power went."""

    driven: int = -1
    committed: set[int] = field(default_factory=set)
    offered: dict[str, str] = field(default_factory=dict)
    receipted: set[str] = field(default_factory=set)
    applied: int = 0
    told: set[int] = field(default_factory=set)
    marks: int = 0

    def copy(self) -> Promised:
        """As it is now."""
        sets = {name: set(getattr(self, name)) for name in ("committed", "receipted", "told")}
        return replace(self, **sets, offered=dict(self.offered))  # type: ignore[arg-type]

    def take(self, mark: Mark) -> None:
        """One more mark of the record."""
        said = mark.content
        self.marks += 1
        self.driven = said.get("driven", self.driven)
        self.committed |= {said["committed"]} if "committed" in said else set()
        self.receipted |= set(said.get("receipt", ()))
        self.applied = said.get("applied", self.applied)
        self.told |= {said["told"]} if "told" in said else set()
        if "offered" in said:
            self.offered[said["offered"]] = said["payload"]

    def breaches_to_come(self) -> set[str]:
        """Ids of the breaches that the cloud has not confirmed and must get."""
        finished = {number for number in self.committed if breaches(number)}
        offered = {found for found, payload in self.offered.items() if '"trace"' in payload}
        return ({_id(number, "breach") for number in finished} | offered) - self.receipted

    def others_to_come(self) -> set[str]:
        """Ids of summaries and acknowledgements that the cloud has not confirmed."""
        trips = {_id(number, "trip") for number in self.committed}
        return (trips | self.offered.keys()) - self.receipted - self.breaches_to_come()


@dataclass
class Findings:
    """What was wrong, each in a sentence; and how many summaries or answers did not come back."""

    problems: list[str] = field(default_factory=list)
    others_missing: int = 0

    def expect(self, is_so: object, otherwise: str) -> None:
        """Note what is not as it must be."""
        if not is_so:
            self.problems.append(otherwise)


def recovered(config: Config, of: Car, promised: Promised) -> Findings:
    """Start the agent on the state that `config` names; what it does must fit the promises."""
    found = Findings()
    offered: dict[str, set[str]] = {}
    fresh: list[str] = []

    def published(kind: str, payload: bytes) -> None:
        if kind != "status":
            named = msgspec.json.decode(payload)["message_id"]
            offered.setdefault(named, set()).add(payload.decode())
            fresh.append(named)

    try:
        with running(config) as rig:
            rig.link.on_publish = published
            rig.now_s[0] = started_at(promised.driven + 1)
            rig.agent.driving.keep_trips()
            _parameters_stand(rig, promised, found)
            rig.connect()
            _answer_all(rig, fresh)
            _nothing_is_lost(rig, promised, offered, found)
            _old_revisions_stay_out(rig, of, promised, found)
            _replay_and_drive_on(rig, of, promised)
            _answer_all(rig, fresh)
            _nothing_comes_twice(promised, offered, found)
            _every_trip_is_told(rig, promised, offered, found)
            _lives_on(rig, of, promised, offered, found)
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent must not raise it
        found.problems.append(f"it raised {error!r}")
    return found


def _parameters_stand(rig: Rig, promised: Promised, found: Findings) -> None:
    """The revision that was applied last, or one that was just being applied."""
    number = rig.agent.status().revision
    found.expect(
        number >= promised.applied, f"it fell back to revision {number} from {promised.applied}"
    )
    possible = {0, promised.applied} | {told for told in promised.told if is_good(told)}
    found.expect(number in possible, f"it runs revision {number}, which nobody sent")
    runs = [float(value) for value in rig.agent.twin.estimate.theta]
    found.expect(runs == theta(number), f"it runs {runs} as revision {number}")


def _answer_all(rig: Rig, fresh: list[str]) -> None:
    """The cloud confirms whatever comes, until nothing more does."""
    for _ in range(1000):
        rig.wait(60.0)
        if not fresh:
            return
        ids, fresh[:] = fresh[:100], fresh[100:]
        rig.receive("receipt", encode(Receipt(vehicle_id=VEHICLE, message_ids=ids)))


def _nothing_is_lost(
    rig: Rig, promised: Promised, offered: dict[str, set[str]], found: Findings
) -> None:
    for lost in promised.breaches_to_come() - offered.keys():
        found.problems.append(f"breach {lost} is lost")
    missing = len(promised.others_to_come() - offered.keys())
    found.others_missing = max(0, missing - rig.agent.status().dropped_trips)


def _old_revisions_stay_out(rig: Rig, of: Car, promised: Promised, found: Findings) -> None:
    """Neither an older one nor one that was refused gets in again."""
    before = rig.agent.status().revision
    for number in sorted(promised.told)[-OLD_REVISIONS:]:
        if number < before or not is_good(number):
            rig.receive("parameters", revision(of, number))
            now = rig.agent.status().revision
            found.expect(now == before, f"revision {number} got in over {before}")


def _replay_and_drive_on(rig: Rig, of: Car, promised: Promised) -> None:
    """The running trip goes on; then the table is played again from a little before it."""
    if promised.driven < 0:
        return
    rig.drive(of, promised.driven, HALF)
    rig.agent.driving.end_trip()
    for number in _replayed(promised):
        rig.drive(of, number)
        rig.agent.driving.end_trip()


def _nothing_comes_twice(promised: Promised, offered: dict[str, set[str]], found: Findings) -> None:
    known = {_id(number, kind) for number in range(promised.driven + 1) for kind in KINDS}
    for named, payloads in offered.items():
        before = {promised.offered[named]} if named in promised.offered else set()
        found.expect(len(payloads | before) == 1, f"message {named} came with two contents")
        is_answer = any('"verdict"' in payload for payload in payloads)
        found.expect(named in known or is_answer, f"message {named} is of a trip nobody drove")


def _every_trip_is_told(
    rig: Rig, promised: Promised, offered: dict[str, set[str]], found: Findings
) -> None:
    """Whatever the cut took was driven again by the replay, and is there once more."""
    due = {_id(number, "trip") for number in _replayed(promised)}
    missing = due - promised.receipted - offered.keys()
    dropped = rig.agent.status().dropped_trips
    found.expect(len(missing) <= dropped, f"{len(missing)} trips have no summary")


def _replayed(promised: Promised) -> range:
    return range(max(0, promised.driven - REPLAYED), promised.driven + 1)


def _lives_on(
    rig: Rig, of: Car, promised: Promised, offered: dict[str, set[str]], found: Findings
) -> None:
    """The next breach is offered, its revision is applied."""
    number = next(n for n in range(promised.driven + 1, promised.driven + 9) if n % 6 == 1)
    rig.drive(of, number)
    rig.agent.driving.end_trip()
    rig.wait(1.0)
    found.expect(_id(number, "breach") in offered, "the next breach is not offered")
    rig.receive("parameters", revision(of, revision_after(number)))
    now = rig.agent.status().revision
    found.expect(now == revision_after(number), f"the next revision is not applied, {now} stays")


def _id(number: int, kind: str) -> str:
    return message_id(VEHICLE, trip_id(number), kind)
