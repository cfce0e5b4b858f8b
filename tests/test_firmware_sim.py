"""The published fleet: its figures, its ageing, its files and its command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from firmware_sim import battery, cli, dataset_folder, fleet_files, trip_plans
from firmware_sim.battery import KG_PER_LB, KM_PER_MILE, M_S_PER_MPH, S_PER_HOUR
from firmware_sim.cli import app
from firmware_sim.dataset_folder import DISCHARGE_CURVES, TRIPS, FileFormat
from firmware_sim.errors import (
    BatteryWornOutError,
    FolderOccupiedError,
    SettingsError,
    WriteFailedError,
)
from firmware_sim.fleet_files import COLUMNS, write_fleet
from firmware_sim.published_fleet import (
    FleetData,
    FleetSettings,
    TruthColumns,
    sample_grid,
    simulate_fleet,
)

DEGRADATIONS = st.floats(0.0, 0.9)


@pytest.fixture(scope="module")
def fleet() -> FleetData:
    return simulate_fleet(FleetSettings(vehicles=20, trips=100, seed=7))


@pytest.fixture(scope="module")
def small() -> FleetData:
    return simulate_fleet(FleetSettings(vehicles=3, trips=4, seed=7))


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# The battery


def test_a_new_cell_follows_the_published_curve() -> None:
    energy_wh = [0.0, 0.4, 1.0, 2.0, 3.0, 4.0, 4.2, 4.6, 4.7, 4.8, 5.0]
    expected_v = [4.75, 4.5, 4.4, 4.3, 4.2, 4.1, 4.05, 4.0, 3.8, 3.7, 2.0]
    assert battery.cell_voltage_v(np.array(energy_wh), 0.0) == pytest.approx(expected_v)
    assert battery.cell_voltage_v(4.9, 0.0) == pytest.approx(2.85)


@pytest.mark.parametrize(
    ("speed_mph", "load_lb", "rolling", "drag", "kwh_per_mile"),
    [
        (0.0, 0.0, 1.0, 1.0, 0.625),
        (60.0, 0.0, 1.0, 1.0, 0.625 * 1.3),
        (0.0, 10_000.0, 1.0, 1.0, 0.625 * 1.2),
        (40.0, 10_000.0, 1.0, 1.0, 0.625 * (1 + 0.3 * 4 / 9 + 0.2)),
        (0.0, 0.0, 0.5, 1.0, 0.625 * 1.05),
        (0.0, 0.0, 1.0, 0.5, 0.625 * 1.15),
    ],
)
def test_a_mile_costs_what_was_published(
    speed_mph: float, load_lb: float, rolling: float, drag: float, kwh_per_mile: float
) -> None:
    wh_per_km = battery.cell_energy_wh_per_km(
        speed_mph * M_S_PER_MPH, load_lb * KG_PER_LB, rolling, drag
    )
    assert wh_per_km * 30_000 * KM_PER_MILE / 1000 == pytest.approx(kwh_per_mile)


def test_degradation_is_the_published_sum_of_three_powers() -> None:
    one_percent_each = battery.degradation(
        2_000 * KM_PER_MILE, 40 * S_PER_HOUR, 100_000 * KG_PER_LB
    )
    assert one_percent_each == pytest.approx(0.01 * 3 * 0.35)
    only_hours = battery.degradation(0.0, 80 * S_PER_HOUR, 0.0)
    assert only_hours == pytest.approx(0.01 * (1.35**2 - 1))
    assert battery.degradation(0.0, 0.0, 0.0) == 0.0


@given(DEGRADATIONS, st.lists(st.floats(0.0, 6.0), min_size=2, max_size=30))
def test_voltage_never_rises_while_a_cell_discharges(d: float, energies_wh: list[float]) -> None:
    voltage_v = battery.cell_voltage_v(np.sort(energies_wh), d)
    assert (np.diff(voltage_v) <= 1e-12).all()


@given(DEGRADATIONS, st.floats(0.0, 5.0))
def test_degradation_shrinks_both_axes_of_the_curve(d: float, energy_wh: float) -> None:
    aged = battery.cell_voltage_v(energy_wh * (1 - d), d)
    assert aged == pytest.approx((1 - d) * battery.cell_voltage_v(energy_wh, 0.0), abs=1e-9)


@given(st.floats(0.0, 0.57))
def test_the_usable_energy_ends_where_the_voltage_meets_the_cut_off(d: float) -> None:
    usable_wh = battery.usable_energy_wh(d)
    assert 0.0 < usable_wh <= battery.cell_capacity_wh(d)
    assert battery.cell_voltage_v(usable_wh, d) == pytest.approx(2.0)


def test_a_battery_that_starts_below_the_cut_off_has_no_usable_energy() -> None:
    assert battery.usable_energy_wh(0.6) == 0.0


def test_a_new_battery_carries_the_vehicle_180_miles_at_reference_conditions() -> None:
    assert battery.range_km(battery.usable_energy_wh(0.0)) == pytest.approx(180 * KM_PER_MILE)


# The draws


@pytest.mark.parametrize(
    ("draw", "unit", "mean", "std"),
    [
        (trip_plans.DISTANCE_KM, KM_PER_MILE, 200.0, 20.0),
        (trip_plans.DURATION_S, S_PER_HOUR, 5.0, 0.5),
        (trip_plans.LOAD_KG, KG_PER_LB, 10_000.0, 1_000.0),
    ],
)
def test_draws_have_the_published_mean_and_spread(
    draw: trip_plans.Draw, unit: float, mean: float, std: float
) -> None:
    values = trip_plans.draw_many(draw, np.random.default_rng(0), 200_000) / unit
    assert values.mean() == pytest.approx(mean, rel=0.002)
    assert values.std() == pytest.approx(std, rel=0.01)


def test_the_plans_use_each_draw_for_its_own_quantity() -> None:
    plans = trip_plans.draw_plans(vehicles=50, trips=100, seed=1)
    assert plans.distance_km.mean() == pytest.approx(200 * KM_PER_MILE, rel=0.01)
    assert plans.duration_s.mean() == pytest.approx(5 * S_PER_HOUR, rel=0.01)
    assert plans.load_kg.mean() == pytest.approx(10_000 * KG_PER_LB, rel=0.01)


def test_a_value_at_or_below_its_bound_is_drawn_again() -> None:
    draw = trip_plans.Draw(mean=0.0, std=1.0, above=0.5)
    values = trip_plans.draw_many(draw, np.random.default_rng(0), 1000)
    assert values.shape == (1000,)
    assert (values > 0.5).all()


# The fleet


def test_batteries_have_lost_about_44_percent_after_100_trips(fleet: FleetData) -> None:
    assert fleet.degradation_at_end().mean() == pytest.approx(0.44, abs=0.03)


def test_every_vehicle_starts_new(fleet: FleetData) -> None:
    assert (fleet.truth.degradation[:, 0] == 0.0).all()
    assert (fleet.truth.state_of_health[:, 0] == 1.0).all()
    assert (fleet.trips.odometer_start_km[:, 0] == 0.0).all()


def test_health_falls_with_every_trip_and_differs_between_vehicles(fleet: FleetData) -> None:
    health = fleet.truth.state_of_health
    assert (np.diff(health, axis=1) < 0).all()
    assert len(np.unique(health[:, -1])) == fleet.settings.vehicles
    assert health[:, -1].std() > 0.005


def test_a_battery_ages_by_what_was_driven_before_the_trip(fleet: FleetData) -> None:
    trips = fleet.trips
    columns = (trips.distance_km, trips.duration_s, trips.load_kg)
    distance_km, duration_s, load_kg = (column[:, :60].sum(axis=1) for column in columns)
    expected = battery.degradation(distance_km, duration_s, load_kg)
    assert fleet.truth.degradation[:, 60] == pytest.approx(expected)


def test_a_trip_ends_as_planned_or_with_an_empty_battery(fleet: FleetData) -> None:
    trips, truth = fleet.trips, fleet.truth
    cut_short = trips.distance_km < trips.planned_distance_km
    assert 0 < cut_short.sum() < cut_short.size
    assert (trips.distance_km <= trips.planned_distance_km).all()
    last_v = truth.voltage_true_v[..., -1]
    empty_v = 2.0 * (1 - truth.degradation)
    assert last_v[cut_short] == pytest.approx(empty_v[cut_short])
    assert (last_v[~cut_short] > empty_v[~cut_short]).all()


def test_the_average_speed_is_the_planned_one_even_when_the_trip_is_cut_short(
    fleet: FleetData,
) -> None:
    trips = fleet.trips
    driven_m_s = 1000 * trips.distance_km / trips.duration_s
    assert trips.average_speed_m_s == pytest.approx(driven_m_s)
    assert trips.average_speed_m_s.mean() == pytest.approx(40 * M_S_PER_MPH, rel=0.03)


def test_trips_start_a_day_apart_from_the_year_2020(fleet: FleetData) -> None:
    starts = [pd.Timestamp(at, unit="s") for at in fleet.trips.started_at_s[3, :3]]
    assert [f"{at:%Y-%m-%dT%H}" for at in starts] == [f"2020-01-0{day}T00" for day in (1, 2, 3)]


def test_every_trip_has_175_samples_that_end_where_the_trip_ends(fleet: FleetData) -> None:
    samples, trips = fleet.samples, fleet.trips
    assert samples.voltage_v.shape == (20, 100, 175)
    assert samples.distance_km[..., -1] == pytest.approx(trips.distance_km)
    assert samples.time_s[..., -1] == pytest.approx(trips.duration_s)


def test_time_and_distance_rise_strictly_from_above_zero(fleet: FleetData) -> None:
    for column in (fleet.samples.time_s, fleet.samples.distance_km):
        assert (column[..., 0] > 0).all()
        assert (np.diff(column, axis=-1) > 0).all()


def test_the_last_tenth_of_a_trip_gets_55_of_the_175_samples() -> None:
    grid = sample_grid(175)
    assert len(grid) == 175
    assert (grid > 0.9 + 1e-9).sum() == 55
    assert np.diff(grid).min() > 0
    assert grid[-1] == 1.0


def test_the_bms_noise_has_a_sigma_of_a_hundredth_volt(fleet: FleetData) -> None:
    noise_v = fleet.samples.voltage_v - fleet.truth.voltage_true_v
    assert noise_v.mean() == pytest.approx(0.0, abs=1e-4)
    assert noise_v.std() == pytest.approx(0.01, rel=0.01)


def test_without_noise_the_bms_measures_the_truth() -> None:
    quiet = simulate_fleet(FleetSettings(vehicles=2, trips=3, seed=7, noise_std_v=0.0))
    assert np.array_equal(quiet.samples.voltage_v, quiet.truth.voltage_true_v)


@pytest.mark.parametrize("part", ["trips", "samples", "truth"])
def test_a_vehicle_does_not_depend_on_the_fleet_around_it_or_the_trips_to_come(
    part: str, small: FleetData
) -> None:
    larger = simulate_fleet(FleetSettings(vehicles=9, trips=6, seed=7))
    for field in fields(getattr(small, part)):
        expected = getattr(getattr(larger, part), field.name)[:3, :4]
        assert np.array_equal(getattr(getattr(small, part), field.name), expected), field.name


def test_another_seed_gives_another_fleet(small: FleetData) -> None:
    other = simulate_fleet(FleetSettings(vehicles=3, trips=4, seed=8))
    assert not np.isclose(other.trips.distance_km, small.trips.distance_km).any()


def test_a_scaler_below_one_costs_range_on_its_own_vehicle_only(small: FleetData) -> None:
    settings = FleetSettings(vehicles=3, trips=4, seed=7, aerodynamic_drag=(1.0, 0.5, 1.0))
    dragging = simulate_fleet(settings)
    assert dragging.trips.aerodynamic_drag[1].tolist() == [0.5] * 4
    shorter = dragging.trips.distance_km < small.trips.distance_km
    assert shorter.any(axis=1).tolist() == [False, True, False]


def test_progress_counts_the_vehicles() -> None:
    seen: list[int] = []
    simulate_fleet(FleetSettings(vehicles=3, trips=2, seed=1), seen.append)
    assert seen == [1, 2, 3]


def test_names_fit_the_contract_and_count_from_one(fleet: FleetData) -> None:
    assert (fleet.vehicle_ids[0], fleet.vehicle_ids[-1]) == ("V001", "V020")
    assert (fleet.trip_ids[0], fleet.trip_ids[-1]) == ("T0001", "T0100")
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in fleet.vehicle_ids)


def test_a_worn_out_battery_ends_the_simulation_with_the_number_of_trips_it_can_do() -> None:
    with pytest.raises(BatteryWornOutError, match="ask for at most") as caught:
        simulate_fleet(FleetSettings(vehicles=2, trips=200, seed=1))
    simulate_fleet(FleetSettings(vehicles=2, trips=caught.value.trips_driven, seed=1))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("vehicles", 0),
        ("trips", 0),
        ("seed", -1),
        ("noise_std_v", -0.01),
        ("noise_std_v", float("nan")),
        ("samples_per_trip", 9),
        ("rolling_friction", 0.0),
        ("rolling_friction", float("nan")),
        ("aerodynamic_drag", 3.0),
        ("aerodynamic_drag", (1.0, 1.0, 1.0)),
    ],
)
def test_a_setting_without_sense_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(SettingsError, match="use") as caught:
        FleetSettings(**{"vehicles": 2, "trips": 2, "seed": 1, setting: value})  # type: ignore[arg-type]
    assert caught.value.setting == setting


def test_a_fleet_beyond_memory_is_refused_before_it_is_tried() -> None:
    with pytest.raises(SettingsError, match="smaller fleets"):
        FleetSettings(vehicles=1_000_000, trips=1_000, seed=1)


# The files


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, small: FleetData, file_format: FileFormat
) -> None:
    again = simulate_fleet(small.settings)
    written = write_fleet(small, tmp_path / "a", file_format)
    write_fleet(again, tmp_path / "b", file_format)
    first = bytes_of(tmp_path / "a")
    assert first == bytes_of(tmp_path / "b")
    assert {path.relative_to(tmp_path / "a").as_posix() for path in written} == set(first)


def read_table(folder: Path, table: str, file_format: FileFormat) -> pd.DataFrame:
    path = folder / f"{table}.{file_format}"
    if file_format is FileFormat.CSV:
        return pd.read_csv(path, float_precision="round_trip")
    return pd.read_parquet(path)


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_tables_hold_what_was_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: FleetData, file_format: FileFormat
) -> None:
    monkeypatch.setattr(dataset_folder, "VEHICLES_PER_BLOCK", 2)
    write_fleet(small, tmp_path / "out", file_format)
    trips = read_table(tmp_path / "out", TRIPS, file_format)
    curves = read_table(tmp_path / "out", DISCHARGE_CURVES, file_format)
    truth = read_table(tmp_path / "out", "truth/truth", file_format)
    assert [len(table) for table in (trips, curves, truth)] == [12, 12 * 175, 12]
    row = trips[(trips.vehicle_id == "V003") & (trips.trip_id == "T0002")].iloc[0]
    assert row.started_at == "2020-01-02T00:00:00Z"
    assert row.distance_km == small.trips.distance_km[2, 1]
    assert row.odometer_end_km == pytest.approx(small.trips.odometer_start_km[2, 2])
    samples = curves[(curves.vehicle_id == "V003") & (curves.trip_id == "T0002")]
    assert samples.voltage_v.tolist() == small.samples.voltage_v[2, 1].tolist()
    assert samples.time_s.tolist() == small.samples.time_s[2, 1].tolist()
    assert samples.odometer_km.iloc[-1] == pytest.approx(row.odometer_end_km)
    assert set(samples.load_kg) == {small.trips.load_kg[2, 1]}
    assert truth.state_of_health.tolist() == small.truth.state_of_health.ravel().tolist()


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_truth_is_never_in_a_file_that_a_twin_reads(
    tmp_path: Path, small: FleetData, file_format: FileFormat
) -> None:
    secret = {field.name for field in fields(TruthColumns)}
    write_fleet(small, tmp_path, file_format)
    for table in (TRIPS, DISCHARGE_CURVES):
        frame = read_table(tmp_path, table, file_format)
        assert not secret & set(frame.columns)
        numbers = {x for column in frame.select_dtypes("number") for x in frame[column].unique()}
        for name in secret:  # from the second trip on: a new battery's health of 1 is no secret
            assert not numbers & set(getattr(small.truth, name)[:, 1:].ravel().tolist()), name
    assert {path.name for path in tmp_path.iterdir()} == {
        f"trips.{file_format}",
        f"discharge_curves.{file_format}",
        "dataset.json",
        "truth",
    }


def test_the_description_names_every_column_and_how_the_fleet_was_made(
    tmp_path: Path, small: FleetData
) -> None:
    write_fleet(small, tmp_path / "out")
    description = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert description["settings"]["seed"] == 7
    assert "aws-do-pm" in description["source"]
    for name, columns in description["tables"].items():
        assert list(columns) == list(pd.read_parquet(tmp_path / "out" / name).columns)
    assert list(description["tables"]) == [f"{table}.parquet" for table in COLUMNS]


def test_an_earlier_fleet_is_replaced_whole(tmp_path: Path, small: FleetData) -> None:
    write_fleet(small, tmp_path / "out", FileFormat.CSV)
    write_fleet(small, tmp_path / "out", FileFormat.PARQUET)
    write_fleet(small, tmp_path / "fresh", FileFormat.PARQUET)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")


@pytest.mark.parametrize("stranger", ["thesis.txt", "truth/notes.txt", "sub/trips.csv"])
def test_a_folder_with_anything_else_is_refused_and_left_alone(
    tmp_path: Path, small: FleetData, stranger: str
) -> None:
    out = tmp_path / "out"
    write_fleet(small, out)
    (out / stranger).parent.mkdir(exist_ok=True)
    (out / stranger).write_text("mine", encoding="utf-8")
    before = bytes_of(tmp_path)
    with pytest.raises(FolderOccupiedError, match="name another folder"):
        write_fleet(small, out)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("description", [None, "no json", "[]", '{"kind": "another program"}'])
def test_tables_without_our_description_are_somebody_elses(
    tmp_path: Path, small: FleetData, description: str | None
) -> None:
    (tmp_path / "trips.parquet").write_text("mine", encoding="utf-8")
    if description is not None:
        (tmp_path / "dataset.json").write_text(description, encoding="utf-8")
    before = bytes_of(tmp_path)
    with pytest.raises(FolderOccupiedError, match="is occupied"):
        write_fleet(small, tmp_path)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("statement", ["_truth", "_description", "_put_in_place"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_failure_while_writing_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: FleetData,
    statement: str,
    *,
    earlier: bool,
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if earlier:
        write_fleet(simulate_fleet(FleetSettings(1, 1, 1)), tmp_path / "out")
    before = bytes_of(tmp_path)
    owner = fleet_files if statement == "_truth" else dataset_folder
    monkeypatch.setattr(owner, statement, disk_full)
    with pytest.raises(WriteFailedError, match="No space left on device"):
        write_fleet(small, tmp_path / "out")
    assert bytes_of(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_a_failure_of_the_last_rename_puts_the_earlier_fleet_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: FleetData
) -> None:
    write_fleet(simulate_fleet(FleetSettings(1, 1, 1)), tmp_path / "out")
    before = bytes_of(tmp_path)
    rename = Path.rename

    def no_new_folder(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_new_folder)
    with pytest.raises(WriteFailedError, match="Permission denied"):
        write_fleet(small, tmp_path / "out")
    assert bytes_of(tmp_path) == before


# The command


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["fleet", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_command_writes_both_formats(tmp_path: Path, file_format: FileFormat) -> None:
    out = tmp_path / "deep" / "out"
    options = ("--vehicles", 2, "--trips", 3, "--seed", 5, "--format", file_format, "--json")
    code, stdout, _ = run("--out", out, *options)
    assert code == 0
    summary = json.loads(stdout)
    assert (summary["vehicles"], summary["trips"], summary["samples"]) == (2, 6, 1050)
    assert all(Path(name).is_file() for name in summary["files"])
    assert len(read_table(out, DISCHARGE_CURVES, file_format)) == 1050


def test_the_command_shows_a_table_and_keeps_stdout_for_it(tmp_path: Path) -> None:
    code, stdout, _ = run("--out", tmp_path / "out", "--vehicles", 1, "--trips", 1)
    assert code == 0
    assert "mean state of health at end" in stdout
    assert "simulating" not in stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--vehicles", 0),
        ("--trips", -3),
        ("--seed", -1),
        ("--format", "xlsx"),
        ("--vehicles", "many"),
        ("--vehicles", 10**7),
    ],
)
def test_nonsense_is_refused_as_usage(tmp_path: Path, options: tuple[object, ...]) -> None:
    code, stdout, stderr = run("--out", tmp_path / "out", *options)
    assert (code, stdout) == (2, "")
    assert str(options[0]).strip("-") in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


def test_an_occupied_folder_fails_with_a_sentence_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cli, "simulate_fleet")
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    code, stdout, stderr = run("--out", tmp_path, "--vehicles", 1, "--trips", 1)
    assert (code, stdout) == (1, "")
    assert stderr.startswith("firmware-sim: ")
    assert "thesis.txt" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_or_its_parent_fails_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        code, _, stderr = run("--out", out, "--vehicles", 1, "--trips", 1)
        assert (code, stderr.startswith("firmware-sim: ")) == (1, True)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_too_many_trips_for_a_battery_fail_with_a_sentence(tmp_path: Path) -> None:
    code, _, stderr = run("--out", tmp_path / "out", "--vehicles", 1, "--trips", 150)
    assert code == 1
    assert "V001 is worn out" in stderr


def test_help_ends_with_examples_and_exit_codes() -> None:
    code, stdout, _ = run("--help")
    assert code == 0
    assert stdout.index("Options:") < stdout.index("Examples:") < stdout.index("Exit codes:")


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "firmware_sim", "fleet", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--vehicles", "1", "--trips", "1", "--json"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["samples"] == 175
