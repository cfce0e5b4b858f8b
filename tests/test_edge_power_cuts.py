"""INVARIANTS 1 and 5: whatever a power cut leaves, the agent lives on and has kept its word.

The record is of the real agent's writes; the states are those that a disk may leave (see
`bench/edge/crash_states.py`). Two agents that are wrong on purpose show that the check can fail.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.edge import power_cuts
from bench.edge.crash_states import MODES, Disk, as_found
from bench.edge.disk_changes import Change, Mark, Name, Resize, Sync, SyncFolder, Write
from bench.edge.disk_record import Recorder
from bench.edge.power_cuts import try_all
from bench.edge.power_record import (
    ENVIRONMENT,
    QUICK,
    Life,
    Record,
    record,
    record_recovery,
)
from bench.edge.strace_reading import RecordError

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

NEVER_SYNCS = """
import os, sqlite3
os.fsync = os.fdatasync = lambda _file: None
class Careless(sqlite3.Connection):
    def execute(self, sql, *values):
        return super().execute("PRAGMA synchronous=OFF" if "synchronous" in sql else sql, *values)
    def executescript(self, sql):
        return super().executescript(sql.replace("=FULL", "=OFF").replace("=NORMAL", "=OFF"))
connect = sqlite3.connect
sqlite3.connect = lambda *names, **options: connect(*names, factory=Careless, **options)
"""
OFFERS_BEFORE_THE_COMMIT = """
from common.messages import encode
from edge_agent.agent import Agent
from edge_agent.trips.reports import reports_of
take_trip = Agent._take_trip
def eager(agent, result):
    summary, breach = reports_of(result, agent.identity)
    if agent.connected and breach is not None:
        agent._link.publish("breach", encode(breach))
    take_trip(agent, result)
Agent._take_trip = eager
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return record(tmp_path_factory.mktemp("lives"), QUICK)


def test_after_a_power_cut_at_any_step_the_agent_starts_and_has_kept_its_word(
    recorded: Record,
) -> None:
    outcome = try_all(recorded, 200)
    assert outcome.failures == []
    assert outcome.others_missing == 0
    assert outcome.states >= 150
    assert set(outcome.modes) == set(MODES)


def test_a_second_power_cut_while_the_agent_recovers_from_the_first_takes_nothing_either(
    recorded: Record, tmp_path: Path
) -> None:
    first = [cut for cut in power_cuts.cuts(recorded, 40) if cut.mode == "any part"][-1]
    outcome = try_all(record_recovery(tmp_path, first), 30)
    assert outcome.failures == []
    assert outcome.states >= 15


def test_the_command_itself_starts_on_what_a_power_cut_left(
    recorded: Record, tmp_path: Path
) -> None:
    cut = list(power_cuts.cuts(recorded, 40))[-1]
    assert power_cuts.command_fails(recorded, cut, tmp_path) is None


WRONG = {
    "never syncs": (NEVER_SYNCS, QUICK[0], ("is lost", "fell back to revision")),
    "offers before the commit": (
        OFFERS_BEFORE_THE_COMMIT,
        Life(6, 8, "whole", "kill"),  # connected, and one of them breaches
        ("is lost", "two contents"),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_agent_that_is_wrong_is_found_out(tmp_path: Path, wrong: str) -> None:
    prelude, life, found = WRONG[wrong]
    outcome = try_all(record(tmp_path, [life], prelude), 160)
    for sentence in found:
        assert any(sentence in failure for failure in outcome.failures), outcome


# ---- the model of the disk ----------------------------------------------------------------------


def left(changes: list[Change]) -> Iterator[dict[str, bytes]]:
    """Many of the states that a power cut after these steps may leave."""
    disk = Disk()
    for change in changes:
        disk.take(change)
    rng = random.Random(1)
    for mode in MODES:
        for _ in range(50):
            yield disk.after_power_cut(mode, rng)


BORN: list[Change] = [(Name("a", 0),), Write(0, 0, b"x" * 1024)]


def test_what_was_synced_is_there_in_every_state() -> None:
    certain = [*BORN, Sync(0), SyncFolder()]
    assert all(files == {"a": b"x" * 1024} for files in left(certain))


def test_without_the_folders_sync_a_file_may_have_no_name() -> None:
    found = {tuple(files) for files in left([*BORN, Sync(0)])}
    assert found == {(), ("a",)}


def test_a_write_is_torn_between_sectors_and_never_within_one() -> None:
    over = [*BORN, Sync(0), SyncFolder(), Write(0, 100, b"y" * 800)]
    found = {files["a"] for files in left(over)}
    cuts = {content.count(b"y") for content in found}
    assert cuts == {0, 412, 388, 800}


def test_a_file_may_have_grown_without_its_data() -> None:
    found = {files["a"] for files in left([*BORN, Sync(0), SyncFolder(), Write(0, 1024, b"y" * 8)])}
    assert b"x" * 1024 + bytes(8) in found
    assert b"x" * 1024 in found


def test_a_name_that_was_given_to_another_file_means_one_of_the_two() -> None:
    swapped: list[Change] = [
        *as_found({"a": b"old", "b": b"new"}),
        (Name("b", None), Name("a", 1)),
    ]
    assert {files["a"] for files in left(swapped)} == {b"old", b"new"}


# ---- the recorder -------------------------------------------------------------------------------

PROGRAM = """
import os, threading
marks = os.open("{folder}/../marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with open("{folder}/one.tmp", "wb") as file:
    file.write(b"hello")
    file.flush()
    os.fsync(file.fileno())
os.write(marks, b'{{"said": 1}}\\n')
os.replace("{folder}/one.tmp", "{folder}/one")
folder = os.open("{folder}", os.O_RDONLY)
os.fsync(folder)
if {careless}:
    os.truncate("{folder}/one", 2)
os.ftruncate(os.open("{folder}/one", os.O_RDWR), 2)
"""


def run(tmp_path: Path, *, careless: bool) -> list[Change]:
    folder = (tmp_path / "folder").resolve()
    folder.mkdir()
    recorder = Recorder(folder, (tmp_path / "marks").resolve())
    program = PROGRAM.format(folder=folder, careless=careless)
    assert recorder.run([sys.executable, "-c", program], ENVIRONMENT) == 0
    return recorder.changes


def test_every_step_of_a_program_is_recorded_in_its_order(tmp_path: Path) -> None:
    assert run(tmp_path, careless=False) == [
        (Name("one.tmp", 0),),
        Write(0, 0, b"hello"),
        Sync(0),
        Mark({"said": 1}),
        (Name("one.tmp", None), Name("one", 0)),
        SyncFolder(),
        Resize(0, 2),
    ]


def test_a_step_that_the_recorder_does_not_know_is_an_error_and_no_gap(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="truncate"):
        run(tmp_path, careless=True)
