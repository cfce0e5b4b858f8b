"""`make demo` and `make demo-real` as their user runs them: real broker, real service, real agents.

The bounds are the product's promise at threshold 0.05 V; the seed is one that no figure in the
documents uses.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
VEHICLES, TRIPS = 4, 100
RUN_TIMEOUT_S = 240


def run(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())["figures"]
    return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    options = ["--vehicles", str(VEHICLES), "--trips", str(TRIPS), "--seed", "77"]
    done = run("demo", *options, "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "updates per 1,000 trips" in done.stdout
    assert "report: out/report.html" in done.stderr
    return folder / "out"


@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(RUN_TIMEOUT_S)
class TestTheSimulatedFleet:
    def test_the_living_twins_stay_below_the_threshold_where_the_frozen_model_is_volts_off(
        self, fleet: Path
    ) -> None:
        found = figures(fleet)
        assert found["error_frozen_last_20_v"] > 1.0
        assert found["error_last_20_v"] <= 0.05
        assert 10 < found["updates_per_1000_trips"] <= 480

    def test_the_state_of_health_is_within_two_points_of_the_truth_at_the_end(
        self, fleet: Path
    ) -> None:
        assert figures(fleet)["health_error_at_end_points"] <= 2.0
        with (fleet / "trips.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        assert float(last["health_truth"]) < 0.65

    def test_it_costs_under_six_per_cent_of_streaming_every_sample(self, fleet: Path) -> None:
        assert 0.0 < figures(fleet)["share_of_streaming"] < 0.06

    def test_every_trip_arrived_once_and_every_breach_was_answered(self, fleet: Path) -> None:
        found = figures(fleet)
        assert found["trips"] == VEHICLES * TRIPS
        assert found["breaches"] >= found["updates"] > 0
        assert found["revisions_refused"] == 0
        assert found["breach_to_applied_p50_ms"] > 0

    def test_the_history_that_it_leaves_verifies(self, fleet: Path) -> None:
        database, key = fleet / "service/cloud.db", fleet / "service/keys/cloud.pub.pem"
        arguments = ["verify", "--database", str(database), "--public-key", str(key), "--json"]
        done = run("cloud", *arguments, cwd=fleet)
        assert done.returncode == 0, done.stdout
        chains = json.loads(done.stdout)
        assert [chain["ok"] for chain in chains] == [True] * VEHICLES

    def test_a_second_run_takes_the_place_of_the_first_but_of_nothing_else(
        self, fleet: Path
    ) -> None:
        done = run("demo", "--vehicles", "1", "--out", str(fleet.parent), cwd=fleet)
        assert done.returncode == 1
        assert "holds other files: name another folder with --out" in done.stderr
        assert (fleet / "report.html").exists()


def small_data(folder: Path) -> Path:
    """Forty cycles of one cell, and the car's training trips with a few later ones."""
    whole = ROOT / "demo" / "data"
    (folder / "calce_cs2").mkdir(parents=True)
    with (
        gzip.open(whole / "calce_cs2/CS2_35.csv.gz", "rt", newline="") as source,
        gzip.open(folder / "calce_cs2/CS2_35.csv.gz", "wt", newline="") as target,
    ):
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["cycle"]) <= 40)
    shutil.copytree(whole / "bmw_i3", folder / "bmw_i3")
    trips = (folder / "bmw_i3/trips.csv").read_text().splitlines()
    kept = [*trips[:13], *trips[-3:]]
    (folder / "bmw_i3/trips.csv").write_text("\n".join(kept) + "\n")
    return folder


@pytest.mark.timeout(RUN_TIMEOUT_S)
def test_measured_data_of_the_same_layout_runs_through_the_same_loop(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data")
    done = run("demo.real", "--data", str(data), "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    cells, car = (figures(tmp_path / "out" / name) for name in ("calce_cs2", "bmw_i3"))
    assert (cells["vehicles"], cells["trips"]) == (1, 40)
    assert cells["error_v"] < 0.05
    assert cells["health_error_points"] < 5
    assert (car["vehicles"], car["trips"], car["winter_trips"]) == (1, 5, 3)
    assert car["winter_error_mv_per_cell"] > 0
    for name in ("calce_cs2", "bmw_i3"):
        for file in ("report.html", "report.json", "trips.csv", "picture.png", "agents.log"):
            assert (tmp_path / "out" / name / file).exists(), (name, file)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: None, "it has neither calce_cs2/ nor bmw_i3/"),
        (lambda folder: (folder / "calce_cs2").mkdir(), "it holds no <cell>.csv.gz"),
        (lambda folder: (folder / "bmw_i3").mkdir(), "No such file"),
    ],
    ids=["empty", "no cells", "no samples"],
)
def test_a_folder_without_measurements_is_one_sentence(
    tmp_path: Path, prepare: Any, says: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    done = run("demo.real", "--data", str(data), "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
