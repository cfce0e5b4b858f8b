"""Samples from files and streams: where trips begin and end, and what becomes of the rest."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import Source, load_config
from edge_agent.errors import ConfigError, ExtraMissingError, SourceError
from edge_agent.samples import Sample, header_problem
from edge_agent.sources import BadRow, read_file, read_json_lines, signal_names, to_sample
from edge_agent.sources.lines import LONGEST_LINE, bounded_lines
from edge_agent.sources.tables import paced
from edge_agent.timekeeping.clock import Clock
from edge_agent.trips.trip_detection import TripStep, step, trip_id_at
from tests.support_edge import START, VEHICLE, manifest_of

MANIFEST = manifest_of(b"")
GOOD = {"time_s": "1.5", "odometer": "2", "distance_km": "3", "load_kg": "4", "voltage_v": "4.1"}
SAMPLE = Sample(1.5, 2.0, {"distance_km": 3.0, "load_kg": 4.0}, 4.1)


def table(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read(path: Path, source: Source | None = None) -> list[Any]:
    return list(read_file(path, source or Source(), MANIFEST, VEHICLE))


def test_the_needed_signals_are_the_sources_of_derived_features() -> None:
    assert signal_names(MANIFEST) == ["distance_km", "load_kg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_table_becomes_samples(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "trips.csv"
    row = GOOD | {"trip_id": "t1", "ignition": "on"}
    path.write_text(table([row, GOOD]), encoding=encoding)
    first, second = read(path)
    assert first == Sample(1.5, 2.0, SAMPLE.signals, 4.1, "t1", ignition=True)
    assert second == SAMPLE


def test_a_gzipped_table_is_read_like_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv.gz"
    path.write_bytes(gzip.compress(table([GOOD]).encode()))
    assert read(path) == [SAMPLE]


def test_only_the_own_rows_of_a_table_of_two_vehicles_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    rows = [GOOD | {"vehicle_id": name, "odometer": str(i)} for i, name in enumerate("ab" * 3)]
    path.write_text(table([{**row, "vehicle_id": row["vehicle_id"]} for row in rows]))
    taken = list(read_file(path, Source(), MANIFEST, "b"))
    assert [sample.odometer for sample in taken if isinstance(sample, Sample)] == [1.0, 3.0, 5.0]


def test_other_names_of_columns_come_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    row = {k: v for k, v in GOOD.items() if k != "time_s"} | {"clock": "1.5"}
    path.write_text(table([row]))
    assert read(path, Source(time_s="clock")) == [SAMPLE]


@pytest.mark.parametrize("column", sorted(GOOD))
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "trips.csv"
    path.write_text(table([{k: v for k, v in GOOD.items() if k != column}]))
    with pytest.raises(SourceError, match=f"no column {column};"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff\xfe\x00", gzip.compress(table([GOOD]).encode())[:-20], b"\x1f\x8bnonsense"],
    ids=["missing", "empty", "no text", "torn gzip", "broken gzip"],
)
@pytest.mark.parametrize("name", ["trips.csv", "trips.csv.gz"])
def test_a_file_that_is_no_table_is_a_source_error(
    tmp_path: Path, content: bytes | None, name: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError):
        read(tmp_path / name)


def test_a_gzip_damaged_in_its_middle_is_a_source_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(table([GOOD] * 5000).encode()))
    packed[len(packed) // 2 :] = bytes(len(packed) - len(packed) // 2)
    (tmp_path / "trips.csv.gz").write_bytes(packed)
    with pytest.raises(SourceError):
        read(tmp_path / "trips.csv.gz")


@pytest.mark.parametrize("bad", ["", "x", "1,5", "--"])
@pytest.mark.parametrize("column", ["time_s", "odometer", "voltage_v"])
def test_a_bad_cell_costs_its_row_and_no_other(tmp_path: Path, column: str, bad: str) -> None:
    path = tmp_path / "trips.csv"
    path.write_text(table([GOOD, GOOD | {column: bad}, GOOD]))
    first, row, last = read(path)
    assert first == last == SAMPLE
    assert isinstance(row, BadRow)
    assert bad in row.text


def test_an_empty_signal_is_missing_and_no_zero(tmp_path: Path) -> None:
    sample = to_sample(GOOD | {"load_kg": ""}, Source(), MANIFEST)
    assert isinstance(sample, Sample)
    assert sample.signals == {"distance_km": 3.0}


def test_a_short_row_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_text(table([GOOD]) + "1.5,2\n")
    assert [type(item) for item in read(path)] == [Sample, BadRow]


@pytest.mark.parametrize(
    ("text", "ignition"),
    [
        *((text, True) for text in ("1", "1.0", "on", "TRUE", "yes")),
        *((text, False) for text in ("0", "0.0", "off", "False", "no")),
        ("", None),
    ],
)
def test_the_ignition_is_read_as_spreadsheets_and_cars_write_it(
    text: str,
    ignition: bool | None,  # noqa: FBT001
) -> None:
    sample = to_sample(GOOD | {"ignition": text}, Source(), MANIFEST)
    assert isinstance(sample, Sample)
    assert sample.ignition is ignition


def test_an_ignition_that_is_neither_on_nor_off_is_not_guessed() -> None:
    assert isinstance(to_sample(GOOD | {"ignition": "perhaps"}, Source(), MANIFEST), BadRow)


def test_json_lines_become_samples_and_what_is_none_becomes_a_bad_row() -> None:
    numbers = {name: float(value) for name, value in GOOD.items()}
    lines = [
        json.dumps(numbers),
        "",
        "  ",
        json.dumps(GOOD),
        "{broken",
        "[1, 2]",
        "null",
        json.dumps(numbers | {"load_kg": [1]}),
        json.dumps(numbers | {"time_s": 10**400}),
        json.dumps({}),
        "[" * 100_000,
        json.dumps(numbers | {"trip_id": 7, "ignition": True}),
    ]
    found = list(read_json_lines(lines, Source(), MANIFEST))
    assert found[:2] == [SAMPLE, SAMPLE]
    assert [type(item) for item in found[2:-1]] == [BadRow] * 7
    assert found[-1] == Sample(1.5, 2.0, SAMPLE.signals, 4.1, "7", ignition=True)
    assert all(len(item.text) <= 1000 for item in found if isinstance(item, BadRow))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
fields = st.dictionaries(st.sampled_from([*GOOD, "trip_id", "ignition"]), json_values)


@given(st.lists(fields.map(lambda row: json.dumps(GOOD | row)) | st.text(), max_size=5))
def test_no_line_stops_the_source(lines: list[str]) -> None:
    found = list(read_json_lines(lines, Source(), MANIFEST))
    assert len(found) == sum(bool(line.strip()) for line in lines)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"time_s": float("nan")}, "its time is nan"),
        ({"time_s": float("inf")}, "its time is inf"),
        ({"time_s": -1.0}, "its time is -1"),
        ({"time_s": 1e12}, "before the year 3000"),
        ({"odometer": float("nan")}, "its odometer is nan"),
        ({"odometer": float("inf")}, "its odometer is inf"),
        ({"odometer": -0.1}, "its odometer is -0.1"),
        ({"trip_id": "a/b"}, "'a/b' is no valid trip id"),
        ({"trip_id": "t" * 65}, "no valid trip id"),
    ],
)
def test_what_trips_are_told_apart_by_must_be_believable(
    changes: dict[str, Any], problem: str | None
) -> None:
    values: dict[str, Any] = {"time_s": 1.0, "odometer": 1.0, "signals": {}, "voltage_v": 4.0}
    found = header_problem(Sample(**(values | changes)))
    assert (found is None) if problem is None else (found is not None and problem in found)


def at(time_s: float, trip_id: str | None = None, ignition: bool | None = None) -> Sample:  # noqa: FBT001
    return Sample(START + time_s, 0.0, {}, 4.0, trip_id, ignition)


NEW = trip_id_at(at(400))


@pytest.mark.parametrize(
    ("running", "previous", "sample", "expected"),
    [
        (None, None, at(0, "a"), TripStep(False, "a")),
        ("a", at(0, "a"), at(1, "a"), TripStep(False, "a")),
        ("a", at(0, "a"), at(1, "b"), TripStep(True, "b")),
        ("a", at(0, "a"), at(9999, "a"), TripStep(False, "a")),
        ("a", at(0, "a"), at(1, None, ignition=False), TripStep(True, None)),
        ("a", at(0, "a"), at(1, "a", ignition=False), TripStep(False, "a")),
        (None, None, at(0, None, ignition=False), TripStep(False, None)),
        (None, None, at(400), TripStep(False, NEW)),
        (None, None, at(400, None, ignition=True), TripStep(False, NEW)),
        (None, at(399), at(400), TripStep(False, NEW)),
        ("run", at(100), at(400), TripStep(False, "run")),
        ("run", at(99), at(400), TripStep(True, NEW)),
        ("run", at(699), at(400), TripStep(False, "run")),
        ("run", at(800), at(400), TripStep(True, NEW)),
        ("run", at(99), at(400, None, ignition=True), TripStep(True, NEW)),
    ],
)
def test_a_trip_ends_by_its_id_else_by_the_ignition_else_by_a_gap(
    running: str | None, previous: Sample | None, sample: Sample, expected: TripStep
) -> None:
    assert step(running, previous, sample, 300.0) == expected


def test_a_trip_without_an_id_is_named_by_its_start() -> None:
    assert trip_id_at(replace(at(0), odometer=12.3456)) == "20231114T221320Z-12346"


MINIMAL = 'vehicle_id = "car-1"\nbundle = "bundle"\nstate = "s.db"\ntrusted_keys = ["k.pem"]\n'


def test_a_configuration_finds_its_files_beside_itself(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    config = load_config(path)
    assert config.path(config.state) == tmp_path / "s.db"
    assert config.path("/etc/k.pem") == Path("/etc/k.pem")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "vehicle_id"),
        ("not toml", "agent.toml cannot be used"),
        (MINIMAL + "surprise = 1\n", "surprise"),
        (MINIMAL.replace("car-1", "car/1"), "car/1"),
        (MINIMAL.replace('["k.pem"]', "[]"), "trusted_keys"),
        (MINIMAL + "[mqtt]\nport = 0\n", "port"),
        (MINIMAL + "[mqtt]\nkeepalive_s = 5\n", "keepalive_s"),
        (MINIMAL + '[mqtt]\nprotocol = "4"\n', "protocol"),
        (MINIMAL + "[limits]\ntrace_points = 513\n", "trace_points"),
        (MINIMAL + "[limits]\nmin_trip_samples = 1\n", "min_trip_samples"),
        (MINIMAL + '[mqtt.tls]\nca_file = "ca"\n', "cert_file"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load_config(path)


@pytest.mark.parametrize("raw", [None, b"\xff\xfe"])
def test_a_configuration_that_cannot_be_read_is_a_config_error(
    tmp_path: Path, raw: bytes | None
) -> None:
    path = tmp_path / "agent.toml"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match=r"agent\.toml"):
        load_config(path)


def test_a_parquet_file_is_read_like_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "trips.parquet"
    rows = [{name: float(value) for name, value in GOOD.items()} for _ in range(3)]
    pandas.DataFrame([{**row, "vehicle_id": VEHICLE} for row in rows]).to_parquet(path)
    assert read(path) == [SAMPLE] * 3


@pytest.mark.parametrize("content", [None, b"", b"PAR1 nonsense"])
def test_a_file_that_is_no_parquet_is_a_source_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "trips.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError):
        read(path)


def test_a_parquet_file_without_its_library_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ExtraMissingError, match=r"needs pyarrow.*Install pyarrow, or give.*CSV"):
        read(tmp_path / "trips.parquet")


def paced_at(items: list[Any], speed: float) -> list[float]:
    """The moments at which the items come, by a clock that only waiting moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return [now[0] for _ in paced(items, speed, lambda: now[0], sleep)]


def test_a_recorded_drive_is_played_in_its_own_time_or_faster() -> None:
    items = [at(0), at(1), BadRow("x", "bad"), at(3), at(10_000), at(9_000), at(9_001)]
    assert paced_at(items, 1.0) == [0.0, 1.0, 1.0, 3.0, 3.0, 3.0, 4.0]
    assert paced_at(items, 2.0) == [0.0, 0.5, 0.5, 1.5, 1.5, 1.5, 2.0]
    assert paced_at(items, 0.0) == [0.0] * 7


def test_a_slow_agent_is_not_waited_for_twice() -> None:
    now = [0.0]
    moments = []
    for _ in paced([at(0), at(1), at(2)], 1.0, lambda: now[0], now.append):
        moments.append(now[0])
        now[0] += 1.5
    assert now[1:] == [0.0, 0.0, 0.0]


def test_a_line_without_an_end_costs_itself_and_no_memory() -> None:
    stream = io.BytesIO(b"[" * 3 * LONGEST_LINE + b"\n" + json.dumps(GOOD).encode() + b"\n\xff\n")
    lines = list(bounded_lines(stream))
    assert [len(line) for line in lines[:1]] == [LONGEST_LINE]
    found = list(read_json_lines(lines, Source(), MANIFEST))
    assert [type(item) for item in found] == [BadRow, Sample, BadRow]


def test_a_live_line_is_stamped_with_the_moment_of_its_arrival() -> None:
    ticks = iter([7.0, 8.0, 9.0])
    lines = [json.dumps(GOOD), "{broken", json.dumps(GOOD)]
    clock = Clock(lambda: 1.6e9, lambda: next(ticks))
    found = list(read_json_lines(lines, Source(), MANIFEST, (), clock))
    samples = [item for item in found if isinstance(item, Sample)]
    assert [(one.monotonic_s, one.arrived_unix_s) for one in samples] == [
        (7.0, 1.6e9),
        (9.0, 1.6e9),
    ]


def test_a_live_line_without_a_time_has_that_of_its_arrival() -> None:
    line = json.dumps({name: value for name, value in GOOD.items() if name != "time_s"})
    clock = Clock(lambda: 1.6e9, lambda: 7.0)
    (live,) = read_json_lines([line], Source(), MANIFEST, (), clock)
    assert isinstance(live, Sample)
    assert live.time_s == 1.6e9
    (recorded,) = read_json_lines([line], Source(), MANIFEST)
    assert isinstance(recorded, BadRow)
