"""The files of a demo run: exact columns, nothing rounded, plain JSON."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo.results import TripRow
from demo.tables import write_report_json, write_trips_csv
from tests.made_up_run import made_up

ODD_ID = 'a,"b"\n=c'
PLAIN = TripRow(
    vehicle_id="car-1",
    trip_id="t1",
    odometer=0.1 + 0.2,
    error_frozen_v=1.25,
    error_v=1e-9,
    breach=True,
    revision=3,
    updated=False,
)
COLUMNS = [
    "vehicle_id",
    "trip",
    "odometer_km",
    "error_frozen_v",
    "error_v",
    "breach",
    "revision",
    "updated",
]


def read_back(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_trips_csv_has_exactly_its_columns_and_reads_back_the_same(tmp_path: Path) -> None:
    write_trips_csv(tmp_path / "trips.csv", [PLAIN, replace(PLAIN, vehicle_id=ODD_ID)])
    head, first, second = read_back(tmp_path / "trips.csv")
    assert head == COLUMNS
    assert first[:2] == ["car-1", "t1"]
    assert [float(cell) for cell in first[2:5]] == [0.1 + 0.2, 1.25, 1e-9]
    assert first[5:] == ["true", "3", "false"]
    assert second[0] == ODD_ID


def test_trips_csv_gains_health_when_any_trip_has_it(tmp_path: Path) -> None:
    healthy = replace(PLAIN, health=0.9, health_std=0.01, health_low=0.88)
    write_trips_csv(tmp_path / "trips.csv", [PLAIN, healthy])
    head, first, second = read_back(tmp_path / "trips.csv")
    assert head == [*COLUMNS, "health", "health_std", "health_low", "health_high", "health_truth"]
    assert first[8:] == [""] * 5
    assert second[8:] == ["0.9", "0.01", "0.88", "", ""]


def test_trips_csv_names_the_odometers_unit(tmp_path: Path) -> None:
    write_trips_csv(tmp_path / "trips.csv", [], odometer_unit="Ah")
    assert read_back(tmp_path / "trips.csv") == [[*COLUMNS[:2], "odometer_Ah", *COLUMNS[3:]]]


def test_report_json_is_plain_json_with_null_for_what_is_no_number(tmp_path: Path) -> None:
    figures = {"latency_p50_ms": np.float64(3.5), "nothing": math.nan, "many": np.arange(2)}
    results = made_up(vehicles=1, trips=10)
    write_report_json(tmp_path / "report.json", results, figures)
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["figures"] == {"latency_p50_ms": 3.5, "nothing": None, "many": [0, 1]}
    assert read["summary"] == dict(results.summary)
    assert read["model"]["parameters"][0]["name"] == "output_gain"
    assert read["revisions"][-1]["theta"] == results.revisions[-1].theta
