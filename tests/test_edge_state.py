"""The state file: whose it is, what becomes of a damaged one, what kill -9 or a full disk leave."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.bundle import Bundle
from common.messages import SignedRevision, TripSummary, decode
from edge_agent.errors import StateInUseError, StateUnusableError
from edge_agent.mqtt.link import Received
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State
from edge_agent.trips import finished_trips
from tests.support_edge import VEHICLE, Rig, aged_bundle, revision_for, signed

ROOT = Path(__file__).resolve().parent.parent
BUNDLE_ID = "0" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return aged_bundle(tmp_path / "bundle")


def state_with_a_message(path: Path, vehicle_id: str = VEHICLE, bundle: str = BUNDLE_ID) -> None:
    with closing(State(path, vehicle_id, bundle)) as state, state.transaction() as db:
        outbox.put(db, "trip", "m", b"payload")


def depth(state: State) -> int:
    return outbox.size(state.connection)[0]


def test_the_own_state_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.db"
    state_with_a_message(path)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert (depth(state), state.set_aside) == (1, [])


def another_format(path: Path) -> None:
    state_with_a_message(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE identity SET value = '0' WHERE key = 'format'")


OTHERS: dict[str, Callable[[Path], None]] = {
    "vehicle": lambda path: state_with_a_message(path, vehicle_id="car-2"),
    "format": another_format,
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_state_of_another_is_set_aside_whole_and_begun_anew(tmp_path: Path, other: str) -> None:
    path = tmp_path / "state.db"
    for number in (1, 2):
        OTHERS[other](path)
        with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
            assert depth(state) == (1 if other == "format" else 0)
            assert state.set_aside == [tmp_path / f"state.db.other-{number}"]
        with closing(sqlite3.connect(state.set_aside[0])) as old:
            assert outbox.size(old)[0] == 1
        path.unlink()


def test_another_bundle_keeps_what_was_measured_and_begins_its_parameters_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    state_with_a_message(path, bundle="1" * 64)
    with closing(State(path, VEHICLE, "1" * 64)) as state, state.transaction() as db:
        kept.write_parameters(db, "current", b"old")
        kept.keep_trace(db, "a breach", 1.0, b"trace")
        kept.count(db, "dropped_trip")
        kept.finish_trip(db, "trip-1")
    for _again in range(2):
        with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
            assert (depth(state), state.set_aside) == (1, [])
            assert kept.counters(state.connection) == {"dropped_trip": 1}
            assert kept.is_finished(state.connection, "trip-1")
            assert kept.awaiting(state.connection) == []
            assert kept.slots(state.connection) == set()


def test_of_the_files_set_aside_the_last_three_stay(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for number in range(6):
        path.write_bytes(b"damage %d" % number)
        State(path, VEHICLE, BUNDLE_ID).close()
    kept_aside = sorted(tmp_path.glob("state.db.damaged-?"))
    assert [file.name[-1] for file in kept_aside] == ["4", "5", "6"]
    assert [file.read_bytes() for file in kept_aside] == [b"damage 3", b"damage 4", b"damage 5"]


def garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database" * 100)


def torn_page(path: Path) -> None:
    """A page of the outbox overwritten, as a dying flash chip does it."""
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state, state.transaction() as db:
        for number in range(100):
            outbox.put(db, "trip", str(number), b"x" * 1000)
    with closing(sqlite3.connect(path)) as db:  # the last to close it carries the log over
        db.execute("SELECT 1 FROM outbox").fetchone()
    content = bytearray(path.read_bytes())
    for page in range(40, 60):
        content[page * 1024 : page * 1024 + 64] = bytes([255]) * 64
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [garbage, torn_page])
def test_a_damaged_state_is_kept_for_a_person_and_the_agent_starts(
    tmp_path: Path, bundle: Bundle, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "state.db"
    damage(path)
    before = path.read_bytes()
    rig = Rig(path, bundle)
    assert rig.state.set_aside == [tmp_path / "state.db.damaged-1"]
    assert rig.state.set_aside[0].read_bytes() == before
    before_trip = depth(rig.state)
    rig.drive()
    assert depth(rig.state) == before_trip + 2
    rig.state.close()


def test_a_second_agent_on_the_same_state_is_refused_and_the_first_drives_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    with closing(State(path, VEHICLE, BUNDLE_ID)) as first:
        for vehicle_id in (VEHICLE, "car-2"):
            with pytest.raises(StateInUseError, match="Another agent is running"):
                State(path, vehicle_id, BUNDLE_ID)
        assert depth(first) == 0
        assert first.set_aside == []
    State(path, VEHICLE, BUNDLE_ID).close()


def test_a_folder_that_cannot_hold_a_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusableError):
        State(tmp_path / "file" / "state.db", VEHICLE, BUNDLE_ID)
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateUnusableError):
        State(tmp_path / "state.db", VEHICLE, BUNDLE_ID)
    with pytest.raises(StateUnusableError):  # and the lock was let go
        State(tmp_path / "state.db", VEHICLE, BUNDLE_ID)


def test_the_outbox_survives_on_a_disk_that_is_told_to_be_sure(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state.db", VEHICLE, BUNDLE_ID)) as state:
        db = state.connection
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


# ---- a disk that refuses --------------------------------------------------------------------


@dataclass
class Disk:
    """Where a state lies, and how its disk is made to refuse writes for a while."""

    folder: Path
    refusing: Callable[[], AbstractContextManager[None]]


@contextmanager
def limited_file_size(path: Path) -> Iterator[None]:
    """No file may grow beyond the log that stands there now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    yield
    filler.unlink()


@pytest.fixture(params=["file size limit", "full filesystem"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "file size limit":
        yield Disk(folder, lambda: limited_file_size(folder / "state.db"))
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield Disk(folder, lambda: filled(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def rig(disk: Disk, bundle: Bundle) -> Iterator[Rig]:
    opened = Rig(disk.folder / "state.db", bundle)
    opened.connect()
    yield opened
    opened.state.close()


def receive(rig: Rig, payload: bytes) -> None:
    rig.tell(Received(f"twin/v1/{VEHICLE}/parameters", payload))


def test_a_full_disk_leaves_the_old_parameters_in_force(disk: Disk, rig: Rig) -> None:
    receive(rig, signed(revision_for(rig.bundle)))
    second = signed(revision_for(rig.bundle, number=2, theta=[1.12, 0.0]))
    with disk.refusing():
        receive(rig, second)
        assert rig.agent.twin.revision == 1
    stored = kept.read_parameters(rig.state.connection, "trial")
    assert isinstance(stored, SignedRevision)
    assert '"number":1' in stored.revision
    rig.reopen()
    assert rig.agent.twin.revision == 1
    receive(rig, second)
    assert rig.agent.twin.revision == 2


def test_a_trip_waits_in_memory_for_a_full_disk_and_is_kept_once(disk: Disk, rig: Rig) -> None:
    with disk.refusing():
        rig.drive("trip-1")
        rig.drive("trip-2")
        assert depth(rig.state) == 0
        assert not rig.agent.is_settled()
        assert rig.link.payloads("breach") == []
    rig.clock.now += 10
    rig.agent.poll()
    kinds = [w.kind for w in outbox.waiting(rig.state.connection, 10)]
    assert kinds == ["breach", "trip", "breach", "trip"]
    assert len(rig.link.payloads("breach")) == 1
    rig.drive("trip-1")
    assert depth(rig.state) == 4


def test_on_a_full_disk_the_agent_starts_with_the_parameters_that_it_has(
    disk: Disk, rig: Rig
) -> None:
    if not os.path.ismount(disk.folder):
        pytest.skip("only a full file system refuses the opening, too")
    receive(rig, signed(revision_for(rig.bundle)))
    rig.state.close()
    with disk.refusing():
        rig.open()
        assert rig.agent.twin.revision == 1
        rig.drive("trip-2", gain=1.2, odometer=2000.0)
        assert not rig.agent.is_settled()
    rig.clock.now += 10
    rig.agent.poll()
    kinds = [w.kind for w in outbox.waiting(rig.state.connection, 10)]
    assert kinds == ["ack", "ack", "breach", "trip"]
    rig.reopen()
    assert rig.agent.twin.revision == 1


def test_trips_beyond_what_memory_holds_are_counted_once_the_disk_is_back(
    disk: Disk, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished_trips, "UNSAVED_TRIPS", 2)
    with disk.refusing():
        for number, gain in enumerate((1.1, 1.0, 1.1, 1.0)):
            rig.drive(f"trip-{number}", gain=gain)
    rig.clock.now += 10
    rig.agent.poll()
    assert (rig.agent.status().dropped_trips, rig.agent.status().dropped_breaches) == (2, 1)
    assert depth(rig.state) == 3


def test_bad_input_on_a_full_disk_does_not_stop_the_agent(disk: Disk, rig: Rig) -> None:
    with disk.refusing():
        receive(rig, b"garbage")
        rig.tell(Received(f"twin/v1/{VEHICLE}/receipt", b"\xff"))
    receive(rig, b"garbage")
    assert rig.agent.status().refused_messages == 3


# ---- kill -9 ----------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from common.bundle import load_bundle
from tests.support_edge import Rig
rig = Rig(Path(sys.argv[1]), load_bundle(Path(sys.argv[2])))
for number in range(int(sys.argv[3])):
    rig.drive(f"trip-{number}", gain=1.1 if number % 2 else 1.0, odometer=1000.0 * number)
    print(number, flush=True)
"""


def test_after_kill_9_at_any_point_every_committed_trip_is_there_exactly_once(
    tmp_path: Path, bundle: Bundle
) -> None:
    """Invariant 1 on the vehicle: what was said to be kept is kept, whole, and never twice."""
    path, trips, rng = tmp_path / "state.db", 200, random.Random(11)
    command = [sys.executable, "-c", WRITER, str(path), str(bundle.path), str(trips)]
    for kill_after in (rng.randrange(0, 60), rng.randrange(60, 120), None):
        writer = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        told = []
        assert writer.stdout is not None
        for line in writer.stdout:
            told.append(int(line))
            if kill_after is not None and told[-1] >= kill_after:
                writer.kill()
        assert writer.wait() == (0 if kill_after is None else -9)
        writer.stdout.close()
        assert_whole(path, bundle, told)
    assert told == list(range(trips))


def assert_whole(path: Path, bundle: Bundle, told: list[int]) -> None:
    """Every told trip once, its breach beside it, nothing half."""
    with closing(State(path, VEHICLE, bundle.sha256)) as state:
        assert state.set_aside == []
        db = state.connection
        waiting = outbox.waiting(db, 10_000)
        summaries = [
            decode(outbox.payload(db, w.seq), TripSummary) for w in waiting if w.kind == "trip"
        ]
        kept_trips = [summary.trip_id for summary in summaries]
        assert kept_trips == [f"trip-{number}" for number in range(len(kept_trips))]
        assert len(kept_trips) > max(told)
        assert all(kept.is_finished(db, trip_id) for trip_id in kept_trips)
        assert not kept.is_finished(db, f"trip-{len(kept_trips)}")
        breaches = sum(summary.breach for summary in summaries)
        assert Counter(w.kind for w in waiting) == {"trip": len(kept_trips), "breach": breaches}
        assert breaches == len(kept_trips) // 2
