"""What the state costs: fsyncs and bytes per trip, as strace counts them; opening a full outbox.

The vehicle of `driven_trips.py` runs in a process of its own under strace. Must never count what
the process does before its first trip or after its last as a trip's.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.edge.driven_trips import TRIP_KM, TripKind
from bench.figures import Figure
from common.topics import Kind
from edge_agent.mqtt.offers import SCAN
from edge_agent.storage import outbox
from edge_agent.storage.state import State

RECORDS = 1_000_000
PAYLOAD_BYTES = 400  # a trip summary
_SYNC = re.compile(r"\b(?:fsync|fdatasync)\(")
_WRITE = re.compile(r"\b(?:pwrite64|write)\(\d+<[^>]*state\.db[^>]*>.*= (\d+)$")


@dataclass(frozen=True)
class Counted:
    """Of one run: for each trip its fsyncs and the bytes written; those of start and stop."""

    fsyncs: list[int]
    written_bytes: list[int]
    other_fsyncs: int


def measure(*, quick: bool) -> list[Figure]:
    """Trips need strace; without it their figures are not there."""
    with tempfile.TemporaryDirectory() as folder:
        found = _opening(Path(folder), RECORDS // 10 if quick else RECORDS)
    strace = shutil.which("strace")
    if strace is None:
        print("durability: fsyncs are counted by strace, which is not installed", file=sys.stderr)
        return found
    return [*_trips(strace, 20 if quick else 120), *found]


def _trips(strace: str, trips: int) -> list[Figure]:
    silent, breach = _driven(strace, "silent", trips), _driven(strace, "breach", trips)
    peer = _driven(strace, "everything-durable", min(trips, 20))
    mean = statistics.mean
    breaches, next_ones = breach.fsyncs[0::2], breach.fsyncs[1::2]
    ratio = mean(peer.fsyncs) / mean(silent.fsyncs)
    per_1000_km = 1000.0 / TRIP_KM / 1e6
    how = f"{trips} trips of 30 min, strace"
    return [
        Figure(
            "fsyncs of a trip without a breach",
            statistics.median(silent.fsyncs),
            "",
            least=3,
            aim=1,
            note=f"median; mean {mean(silent.fsyncs):.2f}; {how}",
        ),
        Figure(
            "fsyncs of a trip with a breach and its revision",
            statistics.median(breaches),
            "",
            least=6,
            aim=3,
            note=f"median; mean {mean(breaches):.2f}; then {mean(next_ones):.2f} with the trip "
            f"that confirms it; {how}",
        ),
        Figure(
            "fsyncs if every transaction waited for the disk",
            mean(peer.fsyncs),
            "",
            note=f"a trip without a breach; {ratio:.0f} times as many",
        ),
        Figure(
            "fsyncs of a start and a stop",
            float(silent.other_fsyncs),
            "",
            note="on the state of an earlier run",
        ),
        Figure(
            "written to the flash per 1,000 km",
            mean(silent.written_bytes) * per_1000_km,
            "MB",
            note=f"{how}; {mean(silent.written_bytes) / 1e3:.0f} kB a trip, "
            f"{mean(breach.written_bytes[0::2]) / 1e3:.0f} kB with a breach",
        ),
    ]


def _driven(strace: str, kind: TripKind, trips: int) -> Counted:
    """Twice on one state: the first run makes the file, the second is counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bench.edge.driven_trips", name]
        subprocess.run([*command, "0", "1", kind], check=True, stdout=subprocess.DEVNULL)
        log = folder / "strace"
        calls = "trace=fsync,fdatasync,pwrite64,write,getpriority"
        subprocess.run(
            [strace, "-f", "-y", "-e", calls, "-o", str(log), *command, "1", str(trips), kind],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return counted(log.read_text())


def counted(log: str) -> Counted:
    """What strace has seen; `getpriority` marks the ends of the trips."""
    parts = re.split(r"^.*\bgetpriority\(.*$", log, flags=re.MULTILINE)
    trips = parts[1:-1]
    return Counted(
        fsyncs=[len(_SYNC.findall(part)) for part in trips],
        written_bytes=[
            sum(int(size) for line in part.splitlines() for size in _WRITE.findall(line))
            for part in trips
        ],
        other_fsyncs=len(_SYNC.findall(parts[0])) + len(_SYNC.findall(parts[-1])),
    )


def _opening(folder: Path, records: int) -> list[Figure]:
    path = folder / "state.db"
    _fill(path, records)
    times_s = [_opened_s(path) for _ in range(5)]
    with closing(sqlite3.connect(path)) as db:
        _forget_pages(path)
        start_s = time.perf_counter()
        db.execute("PRAGMA quick_check").fetchall()
        checked_s = time.perf_counter() - start_s
    return [
        Figure(
            f"opening an outbox of {records:,} records",
            statistics.median(times_s),
            "s",
            least=1.0,
            aim=0.2,
            note=f"to the first {SCAN} messages, page cache dropped; "
            f"a check of the whole file takes {checked_s:.1f} s",
        )
    ]


def _fill(path: Path, records: int) -> None:
    with closing(State(path, "bench-1", "0" * 64)) as state:
        state.connection.execute("PRAGMA synchronous=OFF")
        for first in range(0, records, 10_000):
            with state.transaction(may_be_lost=True) as db:
                for number in range(first, first + 10_000):
                    kind: Kind = "breach" if number % 100 == 0 else "trip"
                    outbox.put(db, kind, f"{number:032x}", os.urandom(PAYLOAD_BYTES))


def _opened_s(path: Path) -> float:
    _forget_pages(path)
    start_s = time.perf_counter()
    with closing(State(path, "bench-1", "0" * 64)) as state:
        assert outbox.size(state.connection)[0]  # noqa: S101 - that it is the full one
        assert len(outbox.waiting(state.connection, SCAN)) == SCAN  # noqa: S101
        return time.perf_counter() - start_s


def _forget_pages(path: Path) -> None:
    """What is on the disk is read from the disk again."""
    for file in path.parent.glob(path.name + "*"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
