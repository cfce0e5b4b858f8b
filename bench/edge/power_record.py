"""Record lives of a car: every write of theirs to the disk, and what was promised meanwhile.

Must never hand on a record that is not whole: carried out, it gives the very files that are there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.edge.agent_under_test import write_config
from bench.edge.crash_states import Disk, Files, Mode, as_found
from bench.edge.disk_changes import Change
from bench.edge.disk_record import Recorder
from bench.edge.made_up_car import write_bundle
from bench.edge.power_check import Promised
from bench.edge.strace_reading import VOLATILE, RecordError

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LIFE: Final = "from bench.edge.power_life import main; main()"
ROOMY: Final = 10_000
TIGHT: Final = 6


@dataclass(frozen=True)
class Record:
    """What some lives did to their disk, from the step `first` on, and what was true before."""

    changes: Sequence[Change]
    config: Path
    first: int = 0
    before: Promised = field(default_factory=Promised)


@dataclass(frozen=True)
class Life:
    """Trips `first` … `last` - 1 and the half of one more."""

    first: int
    last: int
    begins: str
    ends: str
    outbox: int = ROOMY


QUICK: Final = (
    Life(0, 9, "whole", "clean"),
    Life(9, 17, "half", "kill"),
    Life(17, 22, "half", "kill", TIGHT),
)
FULL: Final = (
    Life(0, 26, "whole", "clean"),
    Life(26, 30, "half", "kill"),
    Life(30, 230, "half", "kill"),  # long enough for SQLite to fold its log back and begin it anew
    Life(230, 236, "half", "clean"),
    Life(236, 250, "half", "kill", TIGHT),
)


@dataclass(frozen=True)
class Cut:
    """One state after a power cut, and what was promised before."""

    steps: int
    mode: Mode
    files: Files
    promised: Promised


def record(folder: Path, lives: Sequence[Life], prelude: str = "") -> Record:
    """Record these lives; `prelude` is Python that runs in them first. Raises RecordError."""
    recorder = _recorder(folder)
    for life in lives:
        _live(recorder, life, prelude)
    return Record(recorder.changes, _config(folder, ROOMY))


def record_recovery(folder: Path, cut: Cut) -> Record:
    """Record the next life after a power cut, which begins with putting the state in order."""
    recorder = _recorder(folder)
    write_state(recorder.folder, cut.files)
    recorder.changes += as_found(cut.files)
    begun, number = len(recorder.changes), cut.promised.driven + 1
    _live(recorder, Life(number, number + 2, "whole", "kill"))
    return Record(recorder.changes, _config(folder, ROOMY), begun, cut.promised)


def _recorder(folder: Path) -> Recorder:
    write_bundle(folder / "bundle")
    (folder / "state").mkdir()
    return Recorder((folder / "state").resolve(), (folder / "marks").resolve())


def _config(folder: Path, outbox: int) -> Path:
    limits = {"outbox_messages": outbox, "checkpoint_s": 600, "trip_gap_s": 3600}
    return write_config(folder / "agent.toml", folder / "bundle", **limits)


def _live(recorder: Recorder, life: Life, prelude: str = "") -> None:
    config = _config(recorder.marks.parent, life.outbox)
    told = [config, recorder.marks, life.first, life.last, life.begins, life.ends]
    command = [sys.executable, "-c", f"{prelude}\n{LIFE}", *map(str, told)]
    code = recorder.run(command, ENVIRONMENT)
    if code != (9 if life.ends == "kill" else 0):
        said = recorder.marks.with_name("said.log").read_text()[-500:]
        raise RecordError(f"a life ended with exit code {code}: {said}")
    _check_whole(recorder)


def _check_whole(recorder: Recorder) -> None:
    """The record, carried out, gives the very files of the folder."""
    disk = Disk()
    for change in recorder.changes:
        disk.take(change)
    there = {
        path.name: path.read_bytes()
        for path in recorder.folder.iterdir()
        if not path.name.endswith(VOLATILE)
    }
    if disk.whole() != there:
        raise RecordError("carried out, the record does not give the files that are there")


def write_state(folder: Path, files: Files) -> None:
    """The files as they were left."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
