"""Old traces leave the database for files, and come back to the last byte; young ones stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet as arrow

from cloud.api.access import Context
from cloud.audit import reproduction
from cloud.config import Traces
from cloud.errors import (
    RecalibrationError,
    ReproductionError,
    TraceArchiveError,
    TraceFileError,
    TraceGoneError,
)
from cloud.location import PostgresUrl
from cloud.store import locks, recalibration_orders
from cloud.store import traces as store_of_traces
from cloud.store.audit_tables import RecalibrationOrder
from cloud.store.event_tables import Event
from cloud.store.tables import Breach
from cloud.store.trace_tables import TraceFile
from cloud.traces import parquet
from cloud.traces.archive import Archive
from cloud.traces.keeper import TraceKeeper
from cloud.traces.places import place_at
from cloud.traces.reading import trace_of
from common.messages import Trace
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.support_traces import DAY_S, WANTED, breaches, files, keeper, turned

TRIPS = (1, 2, 3)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """Three vehicles with three settled breaches each, received at `NOW`; two months later."""
    made = Insides(tmp_path, bundle_path, database)
    for trip in TRIPS:
        made.take(*(made.car(name).breach(trip, revision=trip - 1) for name in ("a", "b", "c")))
        made.work()
    made.now = NOW + 61 * DAY_S
    yield made
    made.store.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def traces(inside: Insides) -> dict[str, bytes]:
    return {name: row.trace for name, row in breaches(inside).items()}


def read(inside: Insides, place: Path, breach: Breach) -> bytes:
    with inside.store.read() as db:
        return trace_of(db, Archive(place_at(str(place))), breach)


def ordered(inside: Insides) -> RecalibrationOrder:
    wanted = RecalibrationOrder(
        vehicle_id="a", from_revision=1, ordered_by="desk", why="a gap", ordered_at=NOW
    )
    with inside.store.write() as db:
        return recalibration_orders.place(db, wanted)


numbers = st.floats(allow_nan=False, allow_infinity=False)
columns = st.lists(numbers, min_size=2, max_size=6)
any_trace = st.builds(
    Trace,
    time_s=columns,
    features=st.lists(columns | numbers, max_size=3),
    voltage_v=st.lists(numbers, max_size=6),
    worst=st.lists(st.integers(0, 9), max_size=3),
    within_v=st.none() | st.floats(0, 1e9),
    error_v=st.none() | st.floats(0, 1e9),
)


def with_trace(trace: bytes) -> Breach:
    return Breach(
        vehicle_id="a", message_id="m", trip_id="t", bundle="b", revision=1, odometer=1.0,
        error_v=1.0, threshold_v=1.0, trace=trace, received_at=NOW,
    )  # fmt: skip


@given(any_trace)
def test_what_a_vehicle_sent_comes_back_to_the_last_byte_without_a_copy_of_it(trace: Trace) -> None:
    sent = msgspec.json.encode(trace)
    table = parquet.read(parquet.write([with_trace(sent)]))
    assert parquet.trace_in(table, 0) == sent
    assert table.column("json").null_count == 1


@pytest.mark.parametrize(
    "odd",
    [
        b"{",
        b"",
        b"\xff\x00",
        b'{"time_s": [0, 1], "features": [], "voltage_v": []}',
        b'{"time_s":[0.0,1.0],"features":[[1.0]],"voltage_v":[3.0,3.0],"worst":[],"within_v":null,"error_v":null}',
    ],
)
def test_what_the_columns_would_not_give_is_kept_as_it_is(odd: bytes) -> None:
    table = parquet.read(parquet.write([with_trace(odd)]))
    assert parquet.trace_in(table, 0) == odd


def test_old_traces_leave_the_database_and_are_read_from_the_archive(
    inside: Insides, place: Path
) -> None:
    before = traces(inside)
    assert turned(keeper(inside, place)) == 9
    now = breaches(inside)
    assert {row.trace for row in now.values()} == {b""}
    assert {name: read(inside, place, row) for name, row in now.items()} == before
    [file] = inside.table(TraceFile)
    assert [path.relative_to(place).as_posix() for path in files(place)] == [file.name]
    assert (file.month, file.breaches, file.released) == (parquet.month_of(NOW), 9, 9)
    assert [row.kind for row in inside.table(Event)].count("traces.archived") == 1


def test_its_columns_are_for_whoever_analyses_them(inside: Insides, place: Path) -> None:
    before = breaches(inside)
    turned(keeper(inside, place))
    table = arrow.read_table(place)  # with the month, from the folder's name
    [first] = table.slice(0, 1).to_pylist()
    sent = msgspec.json.decode(before[first["message_id"]].trace, type=Trace)
    assert first["month"] == parquet.month_of(NOW)
    assert (first["time_s"], first["voltage_v"]) == (sent.time_s, sent.voltage_v)
    assert first["features"][1] == [sent.features[1]]


def test_young_traces_and_pending_breaches_stay(inside: Insides, place: Path) -> None:
    inside.take(inside.car("late").breach(1))  # nobody has calibrated it
    inside.now += 100 * DAY_S
    inside.take(inside.car("a").breach(9, revision=3))
    inside.work()
    with inside.store.write() as db:
        db.get_one(Breach, 10).state = "pending"
    turned(keeper(inside, place))
    kept = [row.trip_id for row in breaches(inside).values() if row.archived_in is None]
    assert sorted(kept) == ["trip1", "trip9"]


def test_what_a_recalibration_under_way_needs_stays_until_it_is_done(
    inside: Insides, place: Path
) -> None:
    inside.take(inside.car("a").status(revision=3))
    ordered(inside)
    assert turned(keeper(inside, place)) == 6
    assert all(row.trace for row in breaches(inside).values() if row.vehicle_id == "a")
    inside.worker.wake()
    inside.work()
    assert turned(keeper(inside, place)) == 3


def test_an_order_that_comes_while_a_file_is_written_keeps_its_traces(
    inside: Insides, place: Path
) -> None:
    inside.take(inside.car("a").status(revision=3))

    class Meanwhile(Archive):
        def put(self, name: str, content: bytes) -> None:
            super().put(name, content)
            ordered(inside)

    archive = Meanwhile(place_at(str(place)))
    found = TraceKeeper(inside.store, archive, WANTED, lambda: inside.now).turn()
    assert found.released == 6
    assert all(row.trace for row in breaches(inside).values() if row.vehicle_id == "a")


def test_archived_traces_are_recalibrated_and_reproduced_to_the_last_byte(
    inside: Insides, place: Path
) -> None:
    turned(keeper(inside, place))
    archive = inside.archive = Archive(place_at(str(place)))
    inside.take(inside.car("a").status(revision=3))
    inside.start()
    ordered(inside)
    inside.work()
    rows = inside.rows("a")
    assert [row.kind for row in rows][3:] == ["recalibration"] * (len(rows) - 3) != []
    with inside.store.read() as db:
        for row in rows:
            assert reproduction.reproduce(db, inside.catalogue, row, archive).same
        with pytest.raises(ReproductionError, match=r"no \[traces\] archive"):
            reproduction.reproduce(db, inside.catalogue, rows[0])
    assert {row.trace for row in breaches(inside).values()} == {b""}


def test_the_api_shows_an_archived_trace_as_before(inside: Insides, place: Path) -> None:
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    path = "/api/v1/vehicles/a/trips/trip2/trace"
    with serving(context) as client:
        before = client.get(path).json()
    turned(keeper(inside, place))
    with serving(replace(context, archive=Archive(place_at(str(place))))) as client:
        assert client.get(path).json() == before


def test_whole_months_go_when_they_are_old_and_it_is_said_until_when(
    inside: Insides, place: Path
) -> None:
    turned(keeper(inside, place))
    inside.now = NOW + 395 * DAY_S
    turned(keeper(inside, place))
    assert not place.exists() or files(place) == []
    [file] = inside.table(TraceFile)
    assert file.removed_at == inside.now
    [gone] = [row for row in inside.table(Event) if row.kind == "traces.removed"]
    assert msgspec.json.decode(gone.detail) == {
        "months": [file.month], "files": 1, "breaches": 9,
    }  # fmt: skip
    until = "its trace was kept until 20"
    archive = Archive(place_at(str(place)))
    inside.take(inside.car("a").status(revision=3))
    with inside.store.read() as db:
        with pytest.raises(ReproductionError, match=until):
            reproduction.reproduce(db, inside.catalogue, inside.rows("a")[0], archive)
        with pytest.raises(TraceGoneError, match=until):
            trace_of(db, archive, breaches(inside).popitem()[1])
    with pytest.raises(RecalibrationError, match=until):
        ordered(inside)
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {}, archive=archive)
    with serving(context) as client:
        answer = client.get("/api/v1/vehicles/a/trips/trip2/trace")
        assert until in problem(answer, 410)["detail"]


def test_a_month_that_is_not_all_old_stays(inside: Insides, place: Path) -> None:
    turned(keeper(inside, place))
    inside.now = NOW + 366 * DAY_S
    assert parquet.month_of(inside.now - 365 * DAY_S) == parquet.month_of(NOW)
    turned(keeper(inside, place))
    assert len(files(place)) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_damaged_or_lost_file_is_named(inside: Insides, place: Path) -> None:
    turned(keeper(inside, place))
    breach = breaches(inside).popitem()[1]
    [path] = files(place)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(TraceFileError, match=f"{path.name} cannot be used: its bytes are not"):
        read(inside, place, breach)
    path.unlink()
    with pytest.raises(TraceFileError, match="it is not there"):
        read(inside, place, breach)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_folder_that_is_not_mounted_is_no_lost_file(inside: Insides, place: Path) -> None:
    turned(keeper(inside, place))
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(TraceArchiveError, match="does not answer"):
        read(inside, place, breaches(inside).popitem()[1])


def test_while_the_archive_is_read_for_a_recalibration_others_write(
    inside: Insides, place: Path
) -> None:
    turned(keeper(inside, place))
    inside.take(inside.car("a").status(revision=3))
    written: list[bool] = []

    def write_of_the_same_vehicle() -> None:
        with inside.store.write() as db:
            locks.vehicles(db, ["a"])
        written.append(True)

    class Slow(Archive):
        def trace(self, name: str, vehicle_id: str, message_id: str) -> bytes:
            other = threading.Thread(target=write_of_the_same_vehicle, daemon=True)
            other.start()
            other.join(5.0)
            assert not other.is_alive(), "somebody holds the vehicle"
            return super().trace(name, vehicle_id, message_id)

    inside.archive = Slow(place_at(str(place)))
    inside.start()
    ordered(inside)
    inside.work()
    assert len(written) == 2
    assert len(inside.rows("a")) > 3


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_without_the_archive_a_recalibration_waits_and_breaches_do_not(
    inside: Insides, place: Path
) -> None:
    turned(keeper(inside, place))
    inside.take(inside.car("a").status(revision=3))
    inside.archive = Archive(place_at(str(place)))
    inside.start()
    ordered(inside)
    place.rename(place.with_name("elsewhere"))
    inside.take(inside.car("b").breach(9, revision=3))
    inside.work()
    assert len(inside.rows("b")) == 4
    assert [row.done_at for row in inside.table(RecalibrationOrder)] == [None]
    place.with_name("elsewhere").rename(place)
    inside.worker.wake()
    inside.work()
    assert [row.problem for row in inside.table(RecalibrationOrder)] == [None]
    assert len(inside.rows("a")) > 3


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("step", "when"), [("put", "before"), ("put", "after"), ("release", "after")]
)
def test_killed_between_file_and_release_no_trace_is_lost_and_the_file_is_the_same(
    inside: Insides, place: Path, step: str, when: str
) -> None:
    before = traces(inside)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, inside.path, place, str(inside.now), step, when],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    require_the_same_in_the_end(inside, place, before)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["announce", "releasable", "release", "end_release"])
def test_ended_at_any_step_the_next_turn_goes_on(
    inside: Insides, place: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    before, real = traces(inside), getattr(store_of_traces, step)

    def ended(*arguments: Any) -> None:
        if when == "after":
            real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(store_of_traces, step, ended)
    with pytest.raises(KeyboardInterrupt):
        keeper(inside, place).turn()
    monkeypatch.undo()
    require_the_same_in_the_end(inside, place, before)


def require_the_same_in_the_end(inside: Insides, place: Path, before: dict[str, bytes]) -> None:
    for name, row in breaches(inside).items():
        assert read(inside, place, row) == before[name]
    left = parquets(place)
    turned(keeper(inside, place))
    now = breaches(inside)
    assert {row.trace for row in now.values()} == {b""}
    assert {name: read(inside, place, row) for name, row in now.items()} == before
    assert len(parquets(place)) == 1
    assert left <= parquets(place)


def parquets(place: Path) -> set[Path]:
    return set(place.rglob("*.parquet"))


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from cloud.config import Traces
    from cloud.store import traces
    from cloud.store.database import Store
    from cloud.traces.archive import Archive
    from cloud.traces.keeper import TraceKeeper
    from cloud.traces.places import Folder

    database, place, now, step, when = sys.argv[1:]
    owner = Folder if step == "put" else traces
    real = getattr(owner, step)

    def killed(*arguments):
        if when == "after":
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, killed)
    wanted = Traces(archive="archive", keep_days_in_database=30)
    archive = Archive(Folder(Path(place)))
    TraceKeeper(Store(Path(database)), archive, wanted, lambda: float(now)).turn()
    """
)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_file_that_comes_back_changed_frees_nothing(inside: Insides, place: Path) -> None:
    class Liar(Archive):
        def trace(self, name: str, vehicle_id: str, message_id: str) -> bytes:
            return super().trace(name, vehicle_id, message_id).replace(b"3", b"4", 1)

    archive = Liar(place_at(str(place)))
    with pytest.raises(TraceFileError, match="came back changed"):
        TraceKeeper(inside.store, archive, WANTED, lambda: inside.now).turn()
    assert all(row.trace for row in breaches(inside).values())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"archive": "a", "keep_days": 10}, "less than keep_days_in_database"),
        ({"keep_days": 100}, "there is none"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert(settings, Traces)
