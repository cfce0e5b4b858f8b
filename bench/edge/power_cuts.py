"""What a power cut at any moment leaves, and whether the agent lives on from it.

Lives of the real agent are recorded (`power_record.py`); of the record up to any step come the
states that a power cut may leave (`crash_states.py`); on each the agent is started and held to what
it had promised (`power_check.py`). Some recoveries are recorded as well and cut a second time, and
some states are given to the `edge-agent` command. Needs strace.
"""

from __future__ import annotations

import csv
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from bench.edge.agent_under_test import VEHICLE, config_in
from bench.edge.crash_states import states
from bench.edge.disk_changes import Mark
from bench.edge.made_up_car import car
from bench.edge.power_check import Findings, recovered
from bench.edge.power_record import (
    ENVIRONMENT,
    FULL,
    QUICK,
    Cut,
    Record,
    record,
    record_recovery,
    write_state,
)
from bench.figures import Figure
from common.bundle import load_bundle

SEED: Final = 20_240
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a sync costs nothing there
TOLD: Final = 10


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    states: int
    second_cuts: int
    states_each: int
    commands: int
    floor: int


EFFORTS: Final = {True: Effort(150, 1, 20, 1, 100), False: Effort(2600, 8, 70, 12, 2000)}


def measure(*, quick: bool) -> list[Figure]:
    """States tried, and what was found wrong on them."""
    effort = EFFORTS[quick]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorded = record(_made(folder / "lives"), QUICK if quick else FULL)
        outcome = try_all(recorded, effort.states, workers=2)
        again = _second_cuts(recorded, folder, effort)
        started = _commands(recorded, folder, effort.commands)
    failures = [*outcome.failures, *again.failures, *started]
    for failure in failures[:TOLD]:
        print(failure, file=sys.stderr)
    return _figures(recorded, effort, [outcome, again], failures)


def _figures(
    recorded: Record, effort: Effort, outcomes: Sequence[Outcome], failures: Sequence[str]
) -> list[Figure]:
    modes = sum((outcome.modes for outcome in outcomes), Counter[str]())
    spread = ", ".join(f"{number} {mode}" for mode, number in sorted(modes.items()))
    steps = f"of {len(recorded.changes)} recorded steps; what reached the disk since the last sync:"
    tried = sum(outcome.states for outcome in outcomes)
    gone = sum(outcome.others_missing for outcome in outcomes)
    floor: tuple[float, float] = (effort.floor, effort.floor)
    how = f"of any kind; {effort.commands} states were also given to `edge-agent replay`"
    again = "of the states above: the power goes again while the agent recovers"
    return [
        Figure("power cuts: states", tried, "", *floor, is_floor=True, note=f"{steps} {spread}"),
        Figure("power cuts: second cuts", outcomes[1].states, "", note=again),
        Figure("power cuts: failures", len(failures), "", 0, 0, note=how),
        Figure(
            *("power cuts: summaries and answers gone", gone, "", 0, 0),
            note="committed before the cut, not offered after it",
        ),
    ]


def _second_cuts(recorded: Record, folder: Path, effort: Effort) -> Outcome:
    """Cut the power again while the agent recovers from the first cut."""
    total = Outcome()
    for number, cut in enumerate(_some(recorded, effort.second_cuts)):
        again = record_recovery(_made(folder / f"again-{number}"), cut)
        total.join(try_all(again, effort.states_each, workers=2))
    return total


def _commands(recorded: Record, folder: Path, wanted: int) -> list[str]:
    found = (command_fails(recorded, cut, folder) for cut in _some(recorded, wanted))
    return [failure for failure in found if failure is not None]


def _some(recorded: Record, wanted: int) -> list[Cut]:
    drawn = list(cuts(recorded, 3 * wanted, SEED + 1))
    return drawn[:: max(1, len(drawn) // wanted)][:wanted]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@dataclass
class Outcome:
    """Of many power cuts."""

    states: int = 0
    failures: list[str] = field(default_factory=list)
    others_missing: int = 0
    modes: Counter[str] = field(default_factory=Counter)

    def join(self, other: Outcome) -> None:
        """Those of another record as well."""
        self.states += other.states
        self.failures += other.failures
        self.others_missing += other.others_missing
        self.modes += other.modes

    def add(self, cut: Cut, found: Findings) -> None:
        """One more state."""
        self.states += 1
        self.modes[cut.mode] += 1
        self.others_missing += found.others_missing
        self.failures += [
            f"cut after step {cut.steps} ({cut.mode}): {problem}" for problem in found.problems
        ]


def cuts(recorded: Record, wanted: int, seed: int = SEED) -> Iterator[Cut]:
    """Distinct states, in the order of the record."""
    promised, position = recorded.before.copy(), 0
    seen: set[tuple[int, int]] = set()
    rng = random.Random(seed)  # noqa: S311
    for steps, mode, files in states(recorded.changes, recorded.first, wanted, rng):
        marks = [change for change in recorded.changes[position:steps] if isinstance(change, Mark)]
        for mark in marks:
            promised.take(mark)
        position = steps
        key = (promised.marks, hash(tuple(files.items())))
        if key not in seen:
            seen.add(key)
            yield Cut(steps, mode, files, promised.copy())


def try_all(recorded: Record, wanted: int, workers: int = 1, seed: int = SEED) -> Outcome:
    """Start the agent on each state."""
    logging.getLogger("edge_agent").addHandler(logging.NullHandler())  # it has much to tell
    outcome = Outcome()
    found = cuts(recorded, wanted, seed)
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        at_once = pool.map if pool else map
        for batch in _batches(found, 64):
            findings = at_once(partial(_try, recorded.config), batch)
            for cut, one in zip(batch, findings, strict=True):
                outcome.add(cut, one)
    return outcome


def _batches(found: Iterator[Cut], size: int) -> Iterator[list[Cut]]:
    while batch := list(islice(found, size)):
        yield batch


def _try(config: Path, cut: Cut) -> Findings:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        write_state(folder, cut.files)
        settings = config_in(config, folder)
        of = car(VEHICLE, load_bundle(settings.path(settings.bundle)))
        return recovered(settings, of, cut.promised)


def command_fails(recorded: Record, cut: Cut, folder: Path) -> str | None:
    """What `edge-agent replay` of one more trip, without a broker, has to object to the state."""
    installed = recorded.config.parent
    state = installed / "cut"
    shutil.rmtree(state, ignore_errors=True)
    write_state(_made(state), cut.files)
    table = _next_trip(folder / "next.csv", recorded, cut.promised.driven + 1)
    config = installed / "cut.toml"
    config.write_text(recorded.config.read_text().replace('"state/', '"cut/'))
    command = [sys.executable, "-m", "edge_agent", "replay", str(table), "--json"]
    done = subprocess.run(
        [*command, "--config", str(config)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"edge-agent replay after step {cut.steps} ({cut.mode})"
    if done.returncode != 0:
        return f"{told}: exit code {done.returncode}, {done.stderr[-300:]}"
    said = json.loads(done.stdout)
    is_right = said["trips"] == 1 and said["revision"] >= cut.promised.applied
    return None if is_right else f"{told}: it said {said}"


def _next_trip(path: Path, recorded: Record, number: int) -> Path:
    of = car(VEHICLE, load_bundle(recorded.config.parent / "bundle"))
    rows = list(of.rows(number))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path
