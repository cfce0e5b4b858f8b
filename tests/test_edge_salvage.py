"""A damaged state: the agent starts, says so, saves what can be saved, and drives on.

INVARIANTS 1, 5 and 7: of a file with a broken page the rows of the other pages survive, breaches
before all; the parameters survive any damage; what is lost is counted.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.bundle import Bundle
from edge_agent.cli import main
from edge_agent.errors import StateUnusableError, StorageError
from edge_agent.mqtt.link import Received
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State
from tests.support_edge import VEHICLE, Rig, aged_bundle, revision_for, signed
from tests.support_state import (
    DAMAGES,
    carry_over,
    damage_page,
    kinds,
    overwritten,
    page_with,
    pages_of,
    readable,
    zeroed,
)

BUNDLE_ID = "0" * 64
PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
BREACHES, TRIPS = 16, 24
OWN = f'{{"vehicle_id":"{VEHICLE}",'.encode()
WAL_HEADER_BYTES, FRAME_BYTES = 32, 1024 + 24


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def fill(path: Path) -> None:
    """A state with everything in it, its log carried over."""
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        for number in range(TRIPS):
            with state.transaction() as db:
                if number < BREACHES:
                    trace = OWN + b"breach %2d," % number + os.urandom(1200)
                    outbox.put(db, "breach", f"b{number}", trace)
                    kept.keep_trace(db, f"b{number}", float(number), trace)
                outbox.put(db, "trip", f"t{number}", OWN + b"trip %2d" % number + bytes(300))
                kept.finish_trip(db, f"trip-{number}")
                kept.count(db, "dropped_trip")
        with state.transaction() as db:
            kept.write_parameters(db, "current", b"signed" * 50)
            kept.write_parameters(db, "judged", b"judged" * 50)
    carry_over(path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a filled state, by name."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "state.db")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path, filled: dict[str, bytes]) -> Path:
    lay(tmp_path, filled)
    return tmp_path / "state.db"


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for file in folder.glob("state.db*"):
        file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def in_current(state: State) -> bytes | None:
    row = state.connection.execute(
        "SELECT signed FROM parameters WHERE slot = 'current'"
    ).fetchone()
    return row[0] if row else None


# ---- any page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_whichever_page_is_damaged_the_rows_of_the_others_and_the_parameters_survive(
    tmp_path: Path, filled: dict[str, bytes], path: Path, damage: str
) -> None:
    """A leaf holds two trips, or a part of one breach: no page may cost more than it holds."""
    for number in range(1, pages_of(path) + 1):
        lay(tmp_path, filled)
        damage_page(path, number, DAMAGES[damage])
        with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
            found, where = kinds(state), f"page {number}"
            assert found["breach"] >= BREACHES - 3, where
            assert found["trip"] >= TRIPS - 6, where
            assert in_current(state) == b"signed" * 50, where
            if found.total() < BREACHES + TRIPS:
                assert kept.counters(state.connection)["state_damaged"] == 1, where
                assert kept.counters(state.connection)["state_losses"] >= 1, where
            with state.transaction() as db:
                outbox.put(db, "trip", "new", b"x")
            assert kinds(state)["trip"] == found["trip"] + 1, where


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_of_a_file_that_was_cut_off_the_beginning_survives(path: Path, share: float) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(share * size))
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state)["breach"] >= (share - 0.2) * BREACHES
        assert in_current(state) == b"signed" * 50


def test_what_is_saved_keeps_its_order_and_a_breach_its_trace(path: Path) -> None:
    damage_page(path, page_with(path, b"trip 20"), zeroed)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        numbers = [int(message_id[1:]) for kind, message_id, _ in readable(state) if kind == "trip"]
        assert numbers == sorted(numbers)
        assert len(numbers) >= TRIPS - 6
        assert len(kept.awaiting(state.connection)) == kept.KEPT_TRACES
        assert kept.is_finished(state.connection, "trip-23")


def test_a_bit_that_only_the_checksum_sees_costs_its_own_message_alone(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"trip 21") + 5
    content[at] ^= 1
    path.write_bytes(content)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert state.set_aside == []  # SQLite finds nothing wrong
        found = {message_id for _, message_id, _ in readable(state)}
        assert len(found) == BREACHES + TRIPS - 1
        assert "t21" not in found


def test_a_message_of_no_kind_is_left_behind_and_not_found_again_and_again(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE outbox SET kind = 'trjp' WHERE message_id = 't20'")
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state).total() == BREACHES + TRIPS - 1
        assert len(state.set_aside) == 1


def test_what_was_saved_and_lost_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage_page(path, page_with(path, b"trip 20"), zeroed)
    with caplog.at_level(logging.ERROR), closing(State(path, VEHICLE, BUNDLE_ID)):
        pass
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("state_set_aside")
    assert "'outbox': 1" in told.split("lost=")[1]


# ---- whose it is --------------------------------------------------------------------------------


def test_without_its_name_a_state_gives_back_only_messages_that_bear_the_vehicles(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    with closing(State(path, "car-2", BUNDLE_ID)) as state, state.transaction() as db:
        outbox.put(db, "breach", "theirs", b'{"vehicle_id":"car-2",' + bytes(300))
        outbox.put(db, "breach", "ours", OWN + bytes(300))
    carry_over(path)
    damage_page(path, 2, zeroed)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert [message_id for _, message_id, _ in readable(state)] == ["ours"]


def test_another_bundles_damaged_state_gives_its_messages_and_not_its_parameters(
    path: Path,
) -> None:
    damage_page(path, page_with(path, b"trip 20"), zeroed)
    with closing(State(path, VEHICLE, "1" * 64)) as state:
        assert kinds(state)["breach"] == BREACHES
        assert kept.slots(state.connection) == set()
        assert kept.awaiting(state.connection) == []


# ---- files that are none ----------------------------------------------------------------------


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert state.set_aside == []
        assert kinds(state).total() == 0


def test_a_log_whose_database_is_gone_is_kept_for_a_person(path: Path) -> None:
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state, state.transaction() as db:
        outbox.put(db, "trip", "in the log", b"x")
    path.unlink()
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert state.set_aside == [path.with_name("state.db.damaged-1")]
        assert path.with_name("state.db.damaged-1-wal").stat().st_size > 0
        assert in_current(state) == b"signed" * 50


def test_another_programs_database_and_a_folder_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StateUnusableError, match="another program's"):
        State(path, VEHICLE, BUNDLE_ID)
    assert path.read_bytes()[100:] == before[100:]
    with pytest.raises(StateUnusableError, match="folder"):
        State(tmp_path, VEHICLE, BUNDLE_ID)


# ---- the log ------------------------------------------------------------------------------------


def with_log(path: Path, messages: int) -> Path:
    """A state that was killed: what it wrote last stands in the log alone."""
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        for number in range(messages):
            with state.transaction() as db:
                outbox.put(db, "breach", f"late {number}", OWN + bytes(500))
    return path.with_name(path.name + "-wal")


@pytest.mark.parametrize("cut", [1, FRAME_BYTES // 2, 3 * FRAME_BYTES + 11])
def test_a_torn_log_gives_what_was_whole_before_the_tear(path: Path, cut: int) -> None:
    wal = with_log(path, 10)
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - cut)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert BREACHES + 9 >= kinds(state)["breach"] >= BREACHES + 8


def test_without_its_log_and_its_index_a_state_is_what_was_carried_over(path: Path) -> None:
    with_log(path, 10).unlink()
    path.with_name("state.db-shm").unlink()
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state)["breach"] == BREACHES


def test_an_index_of_rubbish_beside_the_log_changes_nothing(path: Path) -> None:
    with_log(path, 10)
    path.with_name("state.db-shm").write_bytes(os.urandom(32_768))
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state)["breach"] == BREACHES + 10


def test_what_stands_in_the_log_of_a_damaged_database_is_saved_too(path: Path) -> None:
    with_log(path, 10)
    damage_page(path, page_with(path, b"breach  3"), overwritten)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state)["breach"] >= BREACHES + 10 - 3


# ---- while it runs ------------------------------------------------------------------------------


def break_under(rig: Rig, content: bytes, damage: Callable[[bytearray], None]) -> None:
    """Damage a page of the open file, and have SQLite forget what it has read."""
    rig.state.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage_page(rig.path, page_with(rig.path, content), damage)
    rig.state.connection.execute("PRAGMA shrink_memory")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_page_that_breaks_while_the_agent_drives_is_mended_and_it_drives_on(
    tmp_path: Path, bundle: Bundle, damage: str
) -> None:
    rig = Rig(tmp_path / "state.db", bundle)
    for number in range(8):
        rig.drive(f"trip-{number}", gain=1.0, odometer=1000.0 * number)
    rig.tell(Received(PARAMETERS, signed(revision_for(bundle))))
    break_under(rig, b'"trip_id":"trip-4"', DAMAGES[damage])
    rig.connect()
    for _ in range(3):
        rig.clock.now += 2.0
        rig.agent.poll()
    assert rig.agent.twin.revision == 1
    rig.drive("trip-8", odometer=8000.0, gain=1.1)
    found = [message_id for _, message_id, _ in readable(rig.state)]
    assert 11 - 4 <= len(found) < 11
    assert rig.agent.status().revision == 1
    rig.state.close()
    rig.open()
    assert [message_id for _, message_id, _ in readable(rig.state)] == found
    rig.state.close()


def test_a_state_that_breaks_in_every_page_costs_neither_loop_nor_parameters(
    tmp_path: Path, bundle: Bundle
) -> None:
    rig = Rig(tmp_path / "state.db", bundle)
    rig.connect()
    rig.drive("trip-1")
    rig.tell(Received(PARAMETERS, signed(revision_for(bundle))))
    rig.state.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(1, pages_of(rig.path) + 1):
        damage_page(rig.path, number, overwritten)
    rig.state.connection.execute("PRAGMA shrink_memory")
    rig.drive("trip-2", odometer=2000.0)
    rig.clock.now += 2.0
    rig.agent.poll()
    assert kinds(rig.state)["trip"] == 1
    assert rig.agent.twin.revision == 1
    assert rig.agent.status().revision == 1
    rig.reopen()
    assert rig.agent.twin.revision == 1
    rig.state.close()


# ---- a disk that refuses, and a damaged file on it ----------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filler


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def refuse(folder: Path, how: str) -> Callable[[], None]:
    """Make the disk refuse; what brings it back."""
    if how == "full":
        return fill_up(folder).unlink
    remount(folder, "ro")
    return lambda: remount(folder, "rw")


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_on_a_disk_that_refuses_the_agent_starts_with_its_parameters_and_saves_later(
    tmp_path: Path, bundle: Bundle, how: str, *, is_damaged: bool
) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder):
        rig = Rig(folder / "state.db", bundle)
        rig.connect()
        for number in range(6):
            rig.drive(f"trip-{number}", gain=1.0, odometer=1000.0 * number)
        rig.tell(Received(PARAMETERS, signed(revision_for(bundle))))
        rig.state.close()
        if is_damaged:
            carry_over(rig.path)
            damage_page(rig.path, page_with(rig.path, b'"trip_id":"trip-2"'), zeroed)
        bring_back = refuse(folder, how)
        rig.open()
        assert rig.agent.twin.revision == 1
        rig.connect()
        rig.drive("trip-7", odometer=7000.0, gain=1.3)
        assert not rig.agent.is_settled()
        assert rig.agent.status().revision == 1
        bring_back()
        for _ in range(40):
            rig.clock.now += 2.0
            rig.agent.poll()
        found = kinds(rig.state)
        assert found["breach"] == 1
        assert 7 >= found["trip"] >= (3 if is_damaged else 7)
        rig.reopen()
        assert (rig.agent.twin.revision, kinds(rig.state)) == (1, found)
        rig.state.close()


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_on_a_disk_that_refuses_from_the_first_start_the_agent_drives_and_tries_again(
    tmp_path: Path, bundle: Bundle, how: str
) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder):
        bring_back = refuse(folder, how)
        rig = Rig(folder / "state.db", bundle)
        rig.drive("trip-1")
        with pytest.raises(StorageError), rig.state.transaction():
            pass
        bring_back()
        rig.clock.now += 10.0
        rig.agent.poll()
        assert kinds(rig.state) == {"breach": 1, "trip": 1}
        rig.state.close()


# ---- a power cut while the new file takes the old one's place ----------------------------------


@pytest.mark.parametrize("renamed", range(5))
def test_a_power_cut_at_any_step_of_the_replacement_loses_nothing_that_was_saved(
    path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    with_log(path, 3)
    damage_page(path, page_with(path, b"trip 20"), zeroed)
    real, left = Path.rename, [renamed]

    def cut(self: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, target)

    monkeypatch.setattr(Path, "rename", cut)
    try:
        State(path, VEHICLE, BUNDLE_ID).close()
    except KeyboardInterrupt:
        monkeypatch.undo()
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert kinds(state)["breach"] == BREACHES + 3
        assert kinds(state)["trip"] >= TRIPS - 6
        assert in_current(state) == b"signed" * 50
    assert not path.with_name("state.db.new").exists()


# ---- what a person sees -------------------------------------------------------------------------


def test_status_tells_of_the_damage_and_names_what_stands_aside(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(tmp_path / "state.db", bundle)
    for number in range(4):
        rig.drive(f"trip-{number}", gain=1.0, odometer=1000.0 * number)
    rig.state.close()
    carry_over(rig.path)
    damage_page(rig.path, page_with(rig.path, b'"trip_id":"trip-1"'), zeroed)
    rig.open()
    config = tmp_path / "agent.toml"
    config.write_text(
        f'vehicle_id = "{VEHICLE}"\nbundle = "b"\nstate = "state.db"\ntrusted_keys = ["k"]\n'
    )
    assert main(["status", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["set_aside"] == ["state.db.damaged-1"]
    assert told["counters"]["state_damaged"] == 1
    assert told["counters"]["state_losses"] >= 1
    rig.state.close()
