"""Hostile frames, messages and revisions, a million of each, guided by coverage.

Campaigns run in processes of their own, one a core. Must never count a campaign that did not run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.edge.fuzz.plants import PLANTS
from bench.edge.fuzz.run import Outcome
from bench.edge.fuzz.target import UnsignedAcceptanceError
from bench.figures import Figure

GOAL = 1_000_000
SHARES = 4  # of a target's inputs, each from another seed
TARGETS = ("can", "messages", "revisions")
BESIDE = ("keys", "lines", "checkpoints")  # a tenth of the inputs
PLANTED_INPUTS = 20_000
FOUND = Path("runs") / "fuzz"  # where an input that breaks something is kept


class CampaignFailedError(Exception):
    """A campaign ended without a word."""

    def __init__(self, arguments: list[str], said: str) -> None:
        super().__init__(f"{' '.join(arguments)} did not run: {said.strip()[-500:]}")


def measure(*, quick: bool) -> list[Figure]:
    """Inputs and finds of each target, and how many of the planted faults were found."""
    inputs = GOAL // 50 if quick else GOAL
    wanted = {**dict.fromkeys(TARGETS, inputs), **dict.fromkeys(BESIDE, inputs // 10)}
    jobs = [
        [name, "--inputs", str(count // SHARES), "--seed", str(seed), "--keep", str(FOUND)]
        for seed in range(1, SHARES + 1)
        for name, count in wanted.items()
    ]
    plants = [
        [plant.target, "--inputs", str(PLANTED_INPUTS), "--plant", name]
        for name, plant in PLANTS.items()
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(_campaign, [*jobs, *plants]))
    return figures_of(outcomes[: len(jobs)], outcomes[len(jobs) :])


def figures_of(campaigns: Sequence[Outcome], planted: Sequence[Outcome]) -> list[Figure]:
    """`campaigns` on the agent as it is, `planted` on one with each of PLANTS in turn."""
    forged = [outcome for outcome in campaigns if outcome.found == UnsignedAcceptanceError.__name__]
    return [
        *(_inputs(name, campaigns) for name in (*TARGETS, *BESIDE)),
        Figure("crashes and broken promises", _finds(campaigns), "", 0, 0, note=_where(campaigns)),
        Figure("unsigned acceptances", len(forged), "", 0, 0, note="verified a second time"),
        _planted(planted),
    ]


def _campaign(arguments: list[str]) -> Outcome:
    """Raises CampaignFailedError; a process that a signal ended is a find."""
    command = [sys.executable, "-m", "bench.edge.fuzz.run", *arguments]
    one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_core)
    told = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if told:
        return Outcome(**json.loads(told[-1]))
    if done.returncode < 0:
        return Outcome(arguments[0], 0, 0.0, "", f"signal {-done.returncode}")
    raise CampaignFailedError(arguments, done.stderr)


def _inputs(name: str, outcomes: Iterable[Outcome]) -> Figure:
    own = [outcome for outcome in outcomes if outcome.target == name]
    inputs, seconds = sum(o.inputs for o in own), sum(o.seconds for o in own)
    engine = "/".join(sorted({o.engine for o in own}))
    note = f"{engine}, {inputs / max(seconds, 1e-9):.0f} a second of one core"
    goal = GOAL if name in TARGETS else None
    return Figure(f"fuzzed: {name}", inputs, "inputs", goal, goal, is_floor=True, note=note)


def _finds(outcomes: Iterable[Outcome]) -> int:
    return sum(bool(outcome.found) for outcome in outcomes)


def _where(outcomes: Iterable[Outcome]) -> str:
    found = sorted({f"{o.found} in {o.target}" for o in outcomes if o.found})
    return f"{', '.join(found)}: see {FOUND}/" if found else "in all of these"


def _planted(outcomes: Iterable[Outcome]) -> Figure:
    """What a harness is worth that finds nothing: each fault alone, in a copy of the agent."""
    pairs = list(zip(PLANTS.items(), outcomes, strict=False))
    seen = [name for (name, plant), outcome in pairs if outcome.found == plant.found]
    note = f"within {PLANTED_INPUTS} inputs: {', '.join(seen)}"
    return Figure("planted faults found", len(seen), "", len(PLANTS), is_floor=True, note=note)
