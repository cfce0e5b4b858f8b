"""A thousand `kill -9` of running agents, and what the fleet looks like afterwards.

Real agents on real disks and a real Mosquitto; the cloud is a small one that keeps the contract.
Half of the kills fall at a call that a seed draws (a write, a sync, a packet), half at a time. The
cars with a table are then compared with the data that they were fed, and with cars that drove the
same and were never killed; those with a stream with what their agents had finished.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.edge.kill_check import (
    Ending,
    differences,
    problems_of_stream,
    problems_of_table,
    whole,
)
from bench.edge.kill_fleet import Drive, at_once, drive_killed, drive_undisturbed, stage
from bench.edge.kill_lives import Lives, StreamLives, TableLives
from bench.figures import Figure

TOLD: Final = 12
SEED: Final = 7


@dataclass(frozen=True)
class Effort:
    """How many cars of each kind, and how often each agent is killed."""

    tables: int
    streams: int
    kills_each: int

    @property
    def kills(self) -> int:
        """Of all cars."""
        return self.kills_each * (self.tables + self.streams)


EFFORTS: Final = {True: Effort(1, 1, 6), False: Effort(4, 2, 170)}


def measure(*, quick: bool) -> list[Figure]:
    """Kills, and what was lost, came twice, or is otherwise not as it would be without them."""
    effort = EFFORTS[quick]
    with tempfile.TemporaryDirectory() as name:
        killed, problems = run(Path(name), effort)
    for sentences in problems.values():
        for sentence in sentences[:TOLD]:
            print(sentence, file=sys.stderr)
    return _figures(effort, killed, problems)


def run(folder: Path, effort: Effort, seed: int = SEED) -> tuple[list[Drive], dict[str, list[str]]]:
    """Drive the fleet, kill its agents, let it finish; what became of it, and the problems."""
    with stage(folder / "killed") as at:
        kinds: list[Callable[..., Lives]] = [TableLives] * effort.tables
        kinds += [StreamLives] * effort.streams
        calls = [
            partial(drive_killed, at, kind, f"car-{number}", effort.kills_each, seed + number)
            for number, kind in enumerate(kinds)
        ]
        killed = at_once(calls)
    with stage(folder / "undisturbed") as at:
        tables = [(f"car-{n}", drive.trips) for n, drive in enumerate(killed[: effort.tables])]
        never = at_once([partial(drive_undisturbed, at, name, trips) for name, trips in tables])
    return killed, _problems(killed, [drive.ending for drive in never])


def _problems(killed: Sequence[Drive], never: Sequence[Ending]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"lost": [], "twice": [], "wrong": []}
    for number, drive in enumerate(killed):
        if number < len(never):
            one = problems_of_table(drive.ending, drive.trips)
            one["wrong"] += differences(drive.ending, never[number])
        else:
            one = problems_of_stream(drive.ending, drive.trips, drive.lives.told)
        tally = drive.lives.tally
        one["wrong"] += [f"an agent ended by itself with code {code}" for code in tally.exits]
        one["wrong"] += ["an agent hung"] * tally.overdue
        for kind, sentences in one.items():
            found[kind] += [f"car-{number}: {sentence}" for sentence in sentences]
    return found


def _of_streams(effort: Effort, killed: Sequence[Drive]) -> str:
    """What a dead agent cannot see is no loss, but is told."""
    streams = killed[effort.tables :]
    seen = [trip for drive in streams for trip in drive.ending.trips]
    complete = sum(whole(trip) for trip in seen)
    driven = sum(drive.trips for drive in streams)
    return (
        f"of {driven} trips of streams {complete} were seen whole, {len(seen) - complete} in part"
    )


def _figures(
    effort: Effort, killed: Sequence[Drive], problems: dict[str, list[str]]
) -> list[Figure]:
    tallies = [drive.lives.tally for drive in killed]
    phases = sum((tally.phases for tally in tallies), Counter[str]())
    spread = ", ".join(f"{number} {phase}" for phase, number in phases.most_common())
    untold = sum(tally.untold_commits for tally in tallies)
    by_exec = sum(tally.by_exec for tally in tallies)
    trips = sum(len(drive.ending.trips) for drive in killed)
    breaches = sum(len(drive.ending.breaches) for drive in killed)
    floor = (effort.kills, effort.kills)
    return [
        Figure(
            *("kills: kill -9 of a running agent", sum(tally.kills for tally in tallies), ""),
            *floor,
            is_floor=True,
            note=f"{spread}; {untold} between a commit and its word; {by_exec} of fresh processes",
        ),
        Figure(
            *("kills: trips of the fleet meanwhile", trips, "", effort.kills),
            is_floor=True,
            note=f"{len(killed)} cars, {breaches} breaches; {_of_streams(effort, killed)}",
        ),
        Figure("kills: lost trips and breaches", len(problems["lost"]), "", 0, 0),
        Figure("kills: facts that came twice", len(problems["twice"]), "", 0, 0),
        Figure(
            *("kills: other differences", len(problems["wrong"]), "", 0, 0),
            note="parameters, revision, order, content, outbox; to cars that were never killed",
        ),
    ]
