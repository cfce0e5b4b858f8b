"""Cells that PyBaMM ages: skipped where the extra `science` is missing, apart from saying so."""

from __future__ import annotations

import importlib
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cloud.training.candidates import Overrides
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.sobol import SobolSettings
from cloud.training.table import TripChoice
from cloud.training.train import train_bundle
from firmware_sim.cli import app
from firmware_sim.dataset_folder import DISCHARGE_CURVES, TABLES, TRUTH, FileFormat, write_dataset
from firmware_sim.errors import SettingsError
from firmware_sim.pybamm_cells import (
    CellSettings,
    CycledCells,
    load_pybamm,
    simulate_cells,
)
from firmware_sim.pybamm_files import COLUMNS, cells_dataset


def test_without_pybamm_the_command_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pybamm", None)
    result = CliRunner().invoke(app, ["pybamm", "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "living-twin[science]" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "value"), [("cells", 0), ("cycles", 0), ("cycles", 5_000), ("seed", -1)]
)
def test_a_setting_without_sense_is_refused_by_name(setting: str, value: int) -> None:
    with pytest.raises(SettingsError, match="use") as caught:
        CellSettings(**{"cells": 1, "cycles": 1, "seed": 1, setting: value})
    assert caught.value.setting == setting


@pytest.fixture(scope="module")
def cycled() -> CycledCells:
    pytest.importorskip("pybamm", reason="the extra `science` is not installed")
    return simulate_cells(CellSettings(cells=2, cycles=15, seed=3))


@pytest.fixture
def written(cycled: CycledCells, tmp_path: Path) -> Path:
    write_dataset(cells_dataset(cycled), tmp_path / "out", FileFormat.PARQUET)
    return tmp_path / "out"


def test_pybamm_is_loaded_without_reporting_to_anybody(cycled: CycledCells) -> None:
    import os

    assert load_pybamm() is importlib.import_module("pybamm")
    assert os.environ["PYBAMM_DISABLE_TELEMETRY"] == "true"


def test_cells_fade_cycle_by_cycle_each_at_its_own_pace(cycled: CycledCells) -> None:
    assert len({cell.acceleration for cell in cycled.cells}) == 2
    for cell in cycled.cells:
        capacity_ah = [cycle.capacity_ah for cycle in cell.cycles]
        assert len(capacity_ah) == 15
        assert (np.diff(capacity_ah) < 0).all()
        assert (np.diff([cycle.lithium_lost for cycle in cell.cycles]) > 0).all()
        assert 0.9 < capacity_ah[-1] / capacity_ah[0] < 0.99


def test_a_cell_does_not_depend_on_the_other_cells_and_the_seed_decides(
    cycled: CycledCells,
) -> None:
    again = simulate_cells(CellSettings(cells=1, cycles=15, seed=3)).cells[0]
    for mine, theirs in zip(cycled.cells[0].cycles, again.cycles, strict=True):
        assert np.array_equal(mine.voltage_v, theirs.voltage_v)
        assert mine.capacity_ah == theirs.capacity_ah
    other = simulate_cells(CellSettings(cells=1, cycles=1, seed=4)).cells[0]
    assert other.acceleration != again.acceleration


def test_the_tables_hold_what_was_cycled_and_the_truth_stays_apart(
    written: Path, cycled: CycledCells
) -> None:
    tables = {table: pd.read_parquet(written / f"{table}.parquet") for table in TABLES}
    for table, frame in tables.items():
        assert list(frame.columns) == list(COLUMNS[table])
    curves, truth = tables[DISCHARGE_CURVES], tables[TRUTH]
    assert len(truth) == 30
    assert truth["state_of_health"].iloc[0] == 1.0
    assert not {"capacity_ah", "state_of_health", "lithium_lost"} & set(curves.columns)
    cycle = cycled.cells[1].cycles[2]
    rows = curves[(curves["vehicle_id"] == "P002") & (curves["trip_id"] == "C0003")]
    assert rows["voltage_v"].tolist() == cycle.voltage_v.tolist()
    assert rows["odometer_ah"].iloc[0] == pytest.approx(cycle.throughput_ah)
    assert (curves.groupby("vehicle_id")["odometer_ah"].diff().dropna() >= -1e-9).all()


def test_its_table_trains_a_bundle_by_manifest_alone(written: Path, tmp_path: Path) -> None:
    parameters = ("gain:discharged_ah", "offset:output")
    settings = TrainingSettings(
        features=("discharged_ah", "current_a"),
        target="voltage_v",
        trips=TripChoice(6),
        odometer_unit="Ah",
        health_sweep="discharged_ah",
        cutoff_voltage_v=3.0,
        choice=Choice(names=parameters),
        overrides=Overrides(),
        sobol=SobolSettings(16, 0),
    )
    table = written / "discharge_curves.parquet"
    report = train_bundle(settings, table, tmp_path / "bundle", date(2026, 1, 1))
    assert report.bundle.manifest.parameter_names == parameters
    assert report.held_out.rmse_v < 0.03
    assert report.bundle.manifest.health is not None
