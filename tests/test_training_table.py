"""Reading a table of trips: every malformed one gives an error that says where and what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cloud.training.errors import OptionError, TableError
from cloud.training.options import (
    parse_intervals,
    parse_layers,
    parse_moving_averages,
    parse_numbers,
    parse_texts,
    parse_trip_choice,
)
from cloud.training.table import (
    TableColumns,
    TripChoice,
    TripTable,
    moving_average,
    read_trips,
)
from common.features import FeatureBuilder
from common.manifest import Feature, Manifest, MovingAverage, Parameter, Target

COLUMNS = TableColumns(("distance_km", "load_kg"), "voltage_v", {})
CURRENT_AVERAGE = MovingAverage("distance_km", 30.0)
AVERAGED = TableColumns(("distance_km", "smooth"), "voltage_v", {"smooth": CURRENT_AVERAGE})


def frame(vehicles: int = 2, trips: int = 3, rows: int = 12) -> pd.DataFrame:
    count = vehicles * trips * rows
    vehicle, trip, row = np.unravel_index(np.arange(count), (vehicles, trips, rows))
    return pd.DataFrame(
        {
            "vehicle_id": [f"0{v}" for v in vehicle],
            "trip_id": [f"T{t}" for t in trip],
            "time_s": row * 10.0,
            "distance_km": row * 1.5 + vehicle,
            "load_kg": 100.0 + trip,
            "voltage_v": 4.2 - 0.05 * row,
            "unused": "text",
        }
    )


def write(folder: Path, table: pd.DataFrame, name: str = "trips.csv") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def read(path: Path, choice: int | None = None, columns: TableColumns = COLUMNS) -> TripTable:
    return read_trips(path, columns, TripChoice(choice))


@pytest.mark.parametrize("name", ["trips.csv", "trips.csv.gz", "trips.parquet"])
def test_every_format_gives_the_same_trips(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, frame(), name)
    table = read(path)
    assert (table.vehicles, table.trips, len(table.target)) == (2, 6, 72)
    np.testing.assert_allclose(table.features, frame()[["distance_km", "load_kg"]])
    assert table.name == name
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_first_trips_are_chosen_per_vehicle_in_the_order_of_the_table(tmp_path: Path) -> None:
    shuffled = pd.concat([frame()[36:], frame()[:36]])
    one, two = (read(write(tmp_path, shuffled), count) for count in (1, 2))
    assert (one.trips, two.trips) == (2, 4)
    assert set(one.features[:, 1]) == {100.0}
    assert set(two.features[:, 1]) == {100.0, 101.0}


def test_rows_of_interleaved_trips_are_sorted_into_their_trips(tmp_path: Path) -> None:
    plain = frame(vehicles=2, trips=1)
    mixed = plain.iloc[np.arange(24).reshape(2, 12).T.ravel()]
    np.testing.assert_array_equal(
        read(write(tmp_path, mixed)).features, read(write(tmp_path, plain)).features
    )


def test_without_vehicle_and_trip_the_table_is_one_trip(tmp_path: Path) -> None:
    table = read(write(tmp_path, frame().drop(columns=["vehicle_id", "trip_id"])))
    assert (table.vehicles, table.trips) == (1, 1)


def test_a_moving_average_agrees_with_the_one_of_the_vehicle(tmp_path: Path) -> None:
    features = [
        Feature("distance_km", "km", 0, 100),
        Feature("smooth", "km", 0, 100, CURRENT_AVERAGE),
    ]
    manifest = Manifest(
        schema=1,
        name="m",
        model_sha256="0" * 64,
        features=features,
        target=Target("voltage_v", "V", 0, 5),
        parameters=[Parameter("p", "1", 1.0, 0.1, 0.5, 2.0)],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.0,
        cutoff_voltage_v=2.0,
        error_threshold_v=0.05,
    )
    table = read(write(tmp_path, frame()), None, AVERAGED)
    for trip in range(table.trips):
        rows = np.flatnonzero(table.trip == trip)
        builder = FeatureBuilder(manifest)
        streamed = [
            builder.row(10.0 * i, {"distance_km": table.features[row, 0]})
            for i, row in enumerate(rows)
        ]
        np.testing.assert_allclose(table.features[rows], streamed, rtol=1e-12)


def test_a_moving_average_starts_at_the_first_value_and_follows_the_time_constant() -> None:
    found = moving_average(np.array([0.0, 10.0, 10.0]), np.array([1.0, 3.0, 9.0]), 10.0)
    np.testing.assert_allclose(found, [1.0, 3.0 - 2.0 / np.e, 3.0 - 2.0 / np.e])


def spoilt(column: str, row: int, value: Any) -> pd.DataFrame:
    table = frame().astype({"voltage_v": object, "load_kg": object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "column", "row", "said"),
    [
        (frame().drop(columns="load_kg"), "load_kg", None, "missing"),
        (frame().drop(columns="voltage_v"), "voltage_v", None, "missing"),
        (spoilt("voltage_v", 40, None), "voltage_v", 41, "empty cell or NaN"),
        (spoilt("load_kg", 3, "heavy"), "load_kg", 4, "'heavy'"),
        (spoilt("load_kg", 3, "inf"), "load_kg", 4, "no number to train on"),
        (spoilt("trip_id", 7, None), "trip_id", 8, "empty"),
        (frame(1, 1, 5), None, None, "5 rows are too few"),
        (frame()[:0], None, None, "0 rows are too few"),
    ],
    ids=["column", "target", "nan", "text", "infinite", "no trip", "short", "empty"],
)
def test_a_malformed_table_is_refused_at_its_place(
    tmp_path: Path, table: pd.DataFrame, column: str | None, row: int | None, said: str
) -> None:
    with pytest.raises(TableError, match=said) as refused:
        read(write(tmp_path, table))
    assert (refused.value.column, refused.value.row) == (column, row)
    assert "trips.csv" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_time_that_runs_backwards_is_refused_where_it_matters(tmp_path: Path) -> None:
    table = frame()
    table.loc[5, "time_s"] = 0.0
    path = write(tmp_path, table)
    with pytest.raises(TableError, match="backwards") as refused:
        read(path, None, AVERAGED)
    assert refused.value.row == 6
    assert read(path).trips == 6


def test_a_gap_in_a_trip_that_is_not_chosen_does_no_harm(tmp_path: Path) -> None:
    assert read(write(tmp_path, spoilt("voltage_v", 30, None)), 1).trips == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b'vehicle_id,"distance_km\n1,2\n', "does not parse"),
        ("a.csv", b"distance_km,load_kg,voltage_v\n1,2,3\n1,2,3,4,5\n", "does not parse"),
        ("a.csv", b"distance_km,load_kg,voltage_v\n" + b"1,2,3,4\n" * 30, "longer than its header"),
        ("a.csv", b"\xff\xfe\x00\x01", "does not parse"),
        ("a.csv", b"", "does not parse"),
        ("a.parquet", b"PAR1 but no more", "does not parse"),
        ("a.csv.gz", b"no gzip", "Check the path|does not parse"),
        ("a.xlsx", b"", "known format"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match="No such file"):
        read(tmp_path / name)


def test_options_parse() -> None:
    assert [parse_trip_choice(text).count for text in ("all", "first", "first:8")] == [None, 1, 8]
    assert parse_layers("8, 8") == (8, 8)
    assert parse_texts("unit", ["a=km/h"]) == {"a": "km/h"}
    assert parse_numbers("prior", ["gain:a+b=0.1"]) == {"gain:a+b": 0.1}
    assert parse_intervals("range", ["a=-1:2e3"]) == {"a": (-1.0, 2000.0)}
    assert parse_moving_averages(["b=a:30"]) == {"b": MovingAverage("a", 30.0)}


@pytest.mark.parametrize("text", ["last", "first:0", "first:", "first:x", "all:2"])
def test_unknown_trip_choices_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="first:N"):
        parse_trip_choice(text)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=x", "a=nan", "a=inf"])
def test_bad_number_options_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"NAME=|finite"):
        parse_numbers("prior", [text])


@pytest.mark.parametrize("text", ["a=1", "a=2:1", "a=1:1", "a=1:nan"])
def test_bad_interval_options_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="range"):
        parse_intervals("range", [text])


@pytest.mark.parametrize("text", ["a=b", "a=b:0", "a=b:-1", "a=:3", "b:3"])
def test_bad_moving_averages_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="moving-average"):
        parse_moving_averages([text])
