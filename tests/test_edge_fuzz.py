"""Hostile input: the saved corpus, some thousand mutations of it, and faults that must be found."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from bench.edge import fuzzing
from bench.edge.fuzz.mutation import blind
from bench.edge.fuzz.plants import PLANTS
from bench.edge.fuzz.run import Outcome
from bench.edge.fuzz.target import Target
from bench.edge.fuzz.targets import TARGETS, target_of

CORPUS = Path(__file__).parent / "data" / "fuzz"
MUTATIONS = 800
UNTIL_FOUND = 6000

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@cache
def target(name: str) -> Target:
    return target_of(name)


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_that_was_worth_keeping_holds_what_is_promised(name: str) -> None:
    saved = sorted((CORPUS / name).iterdir())
    assert saved
    for path in saved:
        target(name).check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_hold_what_is_promised(name: str) -> None:
    for data in islice(blind(target(name), seed=20), MUTATIONS):
        target(name).check(data)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = PLANTS[name]
    whole = target(plant.target)
    monkeypatch.setattr(plant.owner, plant.attribute, plant.broken)
    found = ""
    for data in islice(blind(whole, seed=3), UNTIL_FOUND):
        try:
            whole.check(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            found = type(error).__name__
            break
    assert found == plant.found


def test_a_campaign_tells_what_it_did_and_keeps_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.edge.fuzz.run", "revisions", "--keep", str(tmp_path)]
    planted = subprocess.run(
        [*command, "--plant", "no signature check"], capture_output=True, text=True, check=True
    )
    outcome = Outcome(**json.loads(planted.stdout.splitlines()[-1]))
    assert outcome.found == "UnsignedAcceptanceError"
    (kept,) = tmp_path.iterdir()
    target("revisions").check(kept.read_bytes())  # the agent as it is refuses it


def test_a_find_is_told_in_the_table() -> None:
    clean = Outcome("can", 100, 1.0, "blind", "")
    forged = Outcome("revisions", 40, 1.0, "blind", "UnsignedAcceptanceError")
    figures = {figure.name: figure for figure in fuzzing.figures_of([clean, forged], [])}
    assert figures["unsigned acceptances"].met == "NO"
    assert figures["crashes and broken promises"].met == "NO"
    assert "revisions" in figures["crashes and broken promises"].note
    assert figures["fuzzed: can"].met == "NO"  # a hundred are no million
