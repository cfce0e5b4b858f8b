"""What waits for the disk and what does not; what bounds the outbox; what an older file becomes."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.edge.durability import counted
from common.bundle import Bundle
from edge_agent.errors import DamagedRowError
from edge_agent.mqtt.link import Received
from edge_agent.sources import BadRow
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State
from edge_agent.storage.state_file import CHECKED_WHOLE_BYTES, has_own_tables
from edge_agent.storage.state_schema import PAGE_BYTES
from tests.support_edge import START, VEHICLE, Rig, aged_bundle, revision_for, signed
from tests.support_state import carry_over, damage_page, page_with, pages_of, readable, zeroed

BUNDLE_ID = "0" * 64
PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[Rig]:
    opened = Rig(tmp_path / "state.db", bundle)
    opened.connect()
    yield opened
    opened.state.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.db", VEHICLE, BUNDLE_ID)
    yield opened
    opened.close()


def receive(rig: Rig, payload: bytes) -> None:
    rig.tell(Received(PARAMETERS, payload))


# ---- what waits for the disk ------------------------------------------------------------------


def commits(rig: Rig) -> list[str]:
    """A list that takes in, from now on, how each commit is made: FULL waits for the disk."""
    mode, changed = ["FULL"], [rig.state.connection.total_changes]
    found: list[str] = []

    def see(statement: str) -> None:
        if statement.startswith("PRAGMA synchronous="):
            mode[0] = statement.removeprefix("PRAGMA synchronous=")
        elif statement == "COMMIT" and rig.state.connection.total_changes != changed[0]:
            changed[0] = rig.state.connection.total_changes
            found.append(mode[0])

    rig.state.connection.set_trace_callback(see)
    return found


def test_a_trip_waits_for_the_disk_once_and_a_verdict_once(rig: Rig) -> None:
    made = commits(rig)
    rig.drive(gain=1.0)
    assert made.count("FULL") == 1
    rig.drive("trip-2", odometer=2000.0)
    assert made.count("FULL") == 2
    receive(rig, signed(revision_for(rig.bundle)))
    assert rig.agent.twin.revision == 1
    assert made.count("FULL") == 3


def test_what_may_be_lost_to_a_power_cut_does_not_wait(rig: Rig) -> None:
    rig.drive()
    made = commits(rig)
    rig.tell(Received(PARAMETERS, b"garbage"))
    rig.agent.take(BadRow("x", "why"))
    message = f'{{"schema":1,"vehicle_id":"{VEHICLE}","message_ids":["{"0" * 32}"]}}'
    rig.tell(Received(f"twin/v1/{VEHICLE}/receipt", message.encode()))
    rig.agent.driving.keep_trips()
    rig.clock.now += 3600.0
    rig.agent.poll()
    assert "NORMAL" in made
    assert "FULL" not in made


@pytest.mark.parametrize(("kind", "most"), [("silent", 3), ("breach", 6)])
def test_the_kernel_is_asked_for_few_fsyncs_a_trip(tmp_path: Path, kind: str, most: int) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace counts them, and is not installed")
    command = [sys.executable, "-m", "bench.edge.driven_trips", str(tmp_path)]
    log = tmp_path / "log"
    calls = "trace=fsync,fdatasync,getpriority"
    traced = [strace, "-f", "-y", "-e", calls, "-o", str(log), *command, "0", "4", kind]
    told = subprocess.run(traced, check=True, capture_output=True, text=True).stdout.split()
    found = counted(log.read_text())
    assert told == (["2", "2"] if kind == "breach" else ["0", "0"])
    assert min(found.fsyncs) >= 1
    assert max(found.fsyncs[1:]) <= most
    assert found.other_fsyncs >= 2  # a new file: that they are seen at all


def test_a_stop_leaves_the_log_for_the_next_start_and_nothing_is_missing(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "state.db"
    rig = Rig(path, bundle)
    rig.drive()
    before = path.read_bytes()
    rig.state.close()
    assert path.read_bytes() == before  # nothing was carried over: that costs two fsyncs
    rig.open()
    assert outbox.size(rig.state.connection)[0] == 2
    rig.state.close()
    carry_over(path)
    rig.open()
    assert outbox.size(rig.state.connection)[0] == 2
    rig.state.close()


def test_in_a_flood_refusals_are_gathered_and_none_is_missing(rig: Rig) -> None:
    made = commits(rig)
    for number in range(1000):
        rig.agent.take(BadRow(f"row {number}", "why"))
    assert len(made) < 100
    assert rig.agent.status().refused_samples == 1000
    newest = kept.refusals(rig.state.connection, 1000)
    assert len(newest) == kept.KEPT_REFUSALS
    assert newest[0].payload == b"row 999"


def test_what_was_gathered_is_written_when_the_flood_is_over(rig: Rig) -> None:
    for number in range(100):
        rig.agent.take(BadRow(f"row {number}", "why"))
    assert kept.counters(rig.state.connection)["refused_sample"] < 100
    rig.clock.now += 61.0
    rig.agent.poll()
    assert kept.counters(rig.state.connection)["refused_sample"] == 100


# ---- the outbox -------------------------------------------------------------------------------


def put(state: State, kind: str, message_id: str, at: float = 0.0, payload: bytes = b"x") -> None:
    with state.transaction() as db:
        outbox.put(db, kind, message_id, payload, at)  # type: ignore[arg-type]


def ids(state: State) -> list[str]:
    return [one.message_id for one in outbox.waiting(state.connection, 10_000)]


def test_what_is_too_old_goes_whatever_its_kind_and_is_counted(state: State) -> None:
    for kind in ("breach", "ack", "trip"):
        put(state, kind, f"old {kind}", START - 91 * DAY_S)
        put(state, kind, f"young {kind}", START - 89 * DAY_S)
    with state.transaction() as db:
        dropped = outbox.evict(db, outbox.Bounds(age_s=90 * DAY_S), START)
    assert dropped == {"trip": 1, "ack": 1, "breach": 1}
    assert ids(state) == ["young breach", "young ack", "young trip"]


@pytest.mark.parametrize("at", [0.0, 86_400.0, START + DAY_S])
def test_a_stamp_of_a_clock_that_was_not_set_or_ran_ahead_makes_nothing_old(
    state: State, at: float
) -> None:
    put(state, "trip", "m", at)
    with state.transaction() as db:
        assert outbox.evict(db, outbox.Bounds(age_s=DAY_S), START) == {}


def test_while_the_time_is_not_known_nothing_is_too_old(state: State) -> None:
    put(state, "trip", "m", START)
    with state.transaction() as db:
        assert outbox.evict(db, outbox.Bounds(age_s=DAY_S)) == {}


def test_the_agent_drops_what_is_older_than_its_configuration_allows(
    tmp_path: Path, bundle: Bundle
) -> None:
    rig = Rig(tmp_path / "state.db", bundle, outbox_days=2.0)
    rig.drive("trip-1", gain=1.0)
    rig.clock.now += 3 * DAY_S
    rig.drive("trip-2", gain=1.0, odometer=2000.0)
    assert outbox.size(rig.state.connection)[0] == 1
    assert rig.agent.status().dropped_trips == 1
    rig.state.close()


def test_bounds_that_were_lowered_far_are_reached_step_by_step(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "EVICTED_AT_ONCE", 4)
    for number in range(10):
        put(state, "trip", str(number))
    left = []
    for _ in range(3):
        with state.transaction() as db:
            outbox.evict(db, outbox.Bounds(messages=2))
        left.append(outbox.size(state.connection)[0])
    assert left == [6, 2, 2]


def test_a_message_that_is_put_right_keeps_size_and_checksum(state: State) -> None:
    put(state, "trip", "m", payload=b"12345")
    with state.transaction() as db:
        outbox.rewrite(db, "m", b"123")
    assert outbox.size(state.connection) == (1, 3)
    assert outbox.payload(state.connection, 1) == b"123"


def test_a_payload_that_is_not_what_was_put_is_never_sent(state: State) -> None:
    put(state, "trip", "m", payload=b"12345")
    state.connection.execute("UPDATE outbox SET crc = crc + 1")
    with pytest.raises(DamagedRowError, match="checksum"):
        outbox.payload(state.connection, 1)


def test_a_large_file_is_opened_without_reading_it_and_mended_where_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state, state.transaction() as db:
        for number in range(CHECKED_WHOLE_BYTES // 50_000 + 10):
            outbox.put(db, "trip", str(number), b"%4d" % number + bytes(50_000))
    carry_over(path)
    assert path.stat().st_size > CHECKED_WHOLE_BYTES
    damage_page(path, page_with(path, b"  40" + bytes(9)), zeroed)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert state.set_aside == []
        found = {message_id for _, message_id, _ in readable(state)}
        assert len(found) >= CHECKED_WHOLE_BYTES // 50_000
        assert {"0", "84"} <= found
        assert "40" not in found
        assert len(state.set_aside) == 1


# ---- an older version's file, and going back to it --------------------------------------------

OLD = Path(__file__).parent / "data" / "edge_state_format_1.db.gz"


def test_the_file_of_the_first_released_layout_is_brought_up_to_date_with_all_it_holds(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE identity SET value = ? WHERE key = 'bundle'", (bundle.sha256,))
        db.commit()
        before = db.execute("SELECT seq, message_id, kind, payload FROM outbox").fetchall()
    rig = Rig(path, bundle)
    db = rig.state.connection
    assert db.execute("SELECT seq, message_id, kind, payload FROM outbox").fetchall() == before
    assert [row[2] for row in before] == ["breach", "trip", "trip", "ack"]
    assert outbox.size(db) == (4, sum(len(row[3]) for row in before))
    assert rig.agent.twin.revision == 1
    assert kept.is_finished(db, "trip-2")
    assert kept.counters(db) == {"refused_message": 1}
    assert has_own_tables(db)
    assert db.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    assert list(tmp_path.glob("state.db.*-1")) == []  # nothing was lost, nothing stands aside
    rig.state.close()


RELEASED_WRITES = (
    "INSERT OR IGNORE INTO outbox (message_id, kind, payload) VALUES ('m', 'trip', x'0102')",
    "INSERT OR REPLACE INTO parameters VALUES ('current', x'00')",
    "INSERT OR IGNORE INTO finished_trip (trip_id) VALUES ('t')",
    "INSERT INTO refused (at, kind, reason, payload) VALUES (1.0, 'sample', 'why', x'00')",
    "INSERT OR REPLACE INTO running_trip VALUES (1, 't', x'00')",
    "INSERT INTO counter VALUES ('n', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
)


def test_a_vehicle_that_was_rolled_back_goes_on_with_the_file_and_back_again(
    tmp_path: Path,
) -> None:
    """The released version's statements on this version's file: it knows no size, no checksum."""
    path = tmp_path / "state.db"
    State(path, VEHICLE, BUNDLE_ID).close()
    with closing(sqlite3.connect(path)) as old, old:
        identity = dict(old.execute("SELECT key, value FROM identity"))
        assert identity == {"vehicle_id": VEHICLE, "bundle": BUNDLE_ID, "format": "1"}
        for statement in RELEASED_WRITES:
            old.execute(statement)
    with closing(State(path, VEHICLE, BUNDLE_ID)) as state:
        assert state.set_aside == []
        assert outbox.size(state.connection) == (1, 2)
        assert readable(state) == [("trip", "m", b"\x01\x02")]


# ---- the parameters' second place -------------------------------------------------------------


def revised(rig: Rig, *numbers: int) -> None:
    for number in numbers:
        theta = [1.0 + number / 100, 0.0]
        receive(rig, signed(revision_for(rig.bundle, number=number, theta=theta)))
        assert rig.agent.twin.revision == number


def destroy(rig: Rig) -> None:
    """The disk loses database and log while the agent is off."""
    rig.state.close()
    for ending in ("", "-wal", "-shm"):
        rig.path.with_name(rig.path.name + ending).unlink()


def test_a_destroyed_database_leaves_the_parameters_and_takes_no_older_revision(rig: Rig) -> None:
    revised(rig, 1, 2, 3)
    destroy(rig)
    rig.open()
    rig.connect()
    assert rig.agent.twin.revision == 3
    assert kept.counters(rig.state.connection) == {"parameters_from_copy": 1}
    receive(rig, signed(revision_for(rig.bundle, number=2)))
    assert rig.agent.twin.revision == 3
    revised(rig, 4)


def test_after_a_damaged_file_the_copies_are_counted_on(rig: Rig) -> None:
    """Else the newest copy would be one of before the damage, and a restart would go back to it."""
    revised(rig, 1, 2, 3)
    rig.state.close()
    carry_over(rig.path)
    with closing(sqlite3.connect(rig.path)) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'parameter_writes'"
        number = db.execute(query).fetchone()[0]
    damage_page(rig.path, number, zeroed)
    rig.open()
    rig.connect()
    assert rig.agent.twin.revision == 3
    revised(rig, 4)
    destroy(rig)
    rig.open()
    assert rig.agent.twin.revision == 4


def test_a_log_that_was_lost_takes_no_revision_back(rig: Rig) -> None:
    revised(rig, 1)
    rig.state.close()
    carry_over(rig.path)
    before = rig.path.read_bytes()
    rig.open()
    rig.connect()
    revised(rig, 2)
    destroy(rig)
    rig.path.write_bytes(before)
    rig.open()
    assert rig.agent.twin.revision == 2


@pytest.mark.parametrize("torn", [".parameters-a", ".parameters-b"])
def test_of_the_two_copies_one_may_be_torn(rig: Rig, torn: str) -> None:
    revised(rig, 1, 2, 3)
    destroy(rig)
    copy = rig.path.with_name(rig.path.name + torn)
    copy.write_bytes(copy.read_bytes()[:-7])
    rig.open()
    assert rig.agent.twin.revision in {2, 3}


def test_another_vehicles_copy_and_another_bundles_are_not_taken(rig: Rig, tmp_path: Path) -> None:
    revised(rig, 1)
    destroy(rig)
    for vehicle_id, bundle_id in (("car-2", rig.bundle.sha256), (VEHICLE, BUNDLE_ID)):
        with closing(State(rig.path, vehicle_id, bundle_id)) as state:
            assert kept.slots(state.connection) == set()
        for ending in ("", "-wal", "-shm"):
            rig.path.with_name(rig.path.name + ending).unlink()
    rig.open()


def test_the_last_three_revisions_are_kept_and_the_newest_that_stands_is_taken(rig: Rig) -> None:
    for number in range(1, 5):
        revised(rig, number)
        rig.drive(f"trip-{number}", gain=1.0 + number / 100, odometer=1000.0 * number)
    with rig.state.transaction() as db:
        query = "SELECT COUNT(*) FROM parameters WHERE slot LIKE 'confirmed%'"
        assert db.execute(query).fetchone() == (3,)
        damaged = "UPDATE parameters SET signed = x'00' WHERE slot IN ('confirmed', 'confirmed-1')"
        assert db.execute(damaged).rowcount == 2
    for copy in rig.path.parent.glob("state.db.parameters-*"):
        copy.unlink()
    rig.reopen()
    assert rig.agent.twin.revision == 2
    rig.connect()
    revised(rig, 4)  # the cloud sends its newest again, and it is taken


def test_pages_are_small_and_freed_ones_are_not_written_over(state: State) -> None:
    put(state, "trip", "m")
    db = state.connection
    assert db.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    assert db.execute("PRAGMA secure_delete").fetchone() == (0,)
    assert pages_of(state.path) < 100
