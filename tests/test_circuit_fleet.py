"""The equivalent-circuit fleet: lives, trips, what the BMS logs, its files and its command."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from firmware_sim.circuit_bms import CURRENT_OFFSET_A, LOG_INTERVAL_S, START_SOC_ERROR, BmsLog
from firmware_sim.circuit_cell import LOWEST_V, NEW_CAPACITY_AH
from firmware_sim.circuit_files import COLUMNS, write_circuit_fleet
from firmware_sim.circuit_fleet import (
    LONGEST_TRIP_S,
    CircuitFleet,
    CircuitFleetSettings,
    simulate_circuit_fleet,
)
from firmware_sim.circuit_habits import SEGMENTS, TRIP_KM, draw_vehicle
from firmware_sim.circuit_life import age, throughput_ah_per_km
from firmware_sim.circuit_reference import usable_charge_ah
from firmware_sim.cli import app
from firmware_sim.dataset_folder import DISCHARGE_CURVES, TABLES, TRIPS, TRUTH, FileFormat
from firmware_sim.drive_cycles import CYCLES, distance_m, speed_m_s
from firmware_sim.errors import BatteryWornOutError, SettingsError

SETTINGS = CircuitFleetSettings(vehicles=3, trips=5, seed=7, km_between_trips=40_000.0)


@pytest.fixture(scope="module")
def fleet() -> CircuitFleet:
    return simulate_circuit_fleet(SETTINGS)


def logs(fleet: CircuitFleet) -> list[BmsLog]:
    return [trip.log for vehicle in fleet.vehicles for trip in vehicle.trips]


# Lives


def test_every_vehicle_starts_new_and_only_ages(fleet: CircuitFleet) -> None:
    for vehicle in fleet.vehicles:
        capacity_ah = [float(trip.cell.capacity_ah) for trip in vehicle.trips]
        growth = [float(trip.cell.growth) for trip in vehicle.trips]
        assert (capacity_ah[0], growth[0]) == (NEW_CAPACITY_AH, 1.0)
        assert (np.diff(capacity_ah) < 0).all()
        assert (np.diff(growth) > 0).all()


def test_after_200_000_km_about_a_fifth_of_the_capacity_is_gone_and_no_two_cars_are_alike() -> None:
    health = []
    for index in range(100):
        habits, _ = draw_vehicle(seed=3, index=index, trips=1)
        cells = age(habits, 6, 40_000.0, "V001")
        health.append(float(cells[-1].capacity_ah) / NEW_CAPACITY_AH)
    assert np.mean(health) == pytest.approx(0.78, abs=0.03)
    assert 0.02 < np.std(health) < 0.1


def test_recording_more_often_changes_an_age_by_less_than_a_thousandth() -> None:
    habits, _ = draw_vehicle(seed=3, index=0, trips=1)
    rarely, often = age(habits, 3, 50_000.0, "V001"), age(habits, 101, 1_000.0, "V001")
    assert float(rarely[-1].capacity_ah) == pytest.approx(float(often[-1].capacity_ah), rel=1e-3)


def test_a_kilometre_puts_twice_its_net_charge_and_the_recuperation_through_a_cell() -> None:
    habits, _ = draw_vehicle(seed=3, index=0, trips=1)
    assert 2 * 0.015 < throughput_ah_per_km(habits) < 2 * 0.035


def test_a_battery_that_ends_before_the_trips_do_is_told() -> None:
    with pytest.raises(BatteryWornOutError, match="V001 is worn out after"):
        simulate_circuit_fleet(CircuitFleetSettings(1, 100, 1, km_between_trips=50_000.0))


def test_the_longest_trip_finds_enough_cycles() -> None:
    assert SEGMENTS * min(distance_m(speed_m_s(c)) for c in CYCLES) > 1000 * TRIP_KM[1]


# Trips


def test_a_trip_ends_as_planned_or_after_four_hours_or_with_an_empty_battery(
    fleet: CircuitFleet,
) -> None:
    reasons = set()
    for vehicle in fleet.vehicles:
        for trip in vehicle.trips:
            log = trip.log
            planned = log.distance_km[-1] > trip.planned_distance_km - 2.0
            long = log.time_s[-1] > LONGEST_TRIP_S - LOG_INTERVAL_S
            empty = log.voltage_v.min() < 3.2
            assert planned or long or empty
            reasons |= {name for name, yes in (("p", planned), ("l", long), ("e", empty)) if yes}
            assert log.distance_km[-1] < trip.planned_distance_km + 0.1
            assert log.time_s[-1] <= LONGEST_TRIP_S
    assert reasons == {"p", "l", "e"}


def test_the_bms_keeps_the_cell_in_its_window(fleet: CircuitFleet) -> None:
    for log in logs(fleet):
        assert log.voltage_v.min() > LOWEST_V - 0.05
        assert log.voltage_v.max() < 4.25


def test_time_and_distance_rise_and_every_number_is_finite(fleet: CircuitFleet) -> None:
    for log in logs(fleet):
        assert (np.diff(log.time_s) == LOG_INTERVAL_S).all()
        assert (np.diff(log.distance_km) >= 0.0).all()
        for field in fields(log):
            assert np.isfinite(getattr(log, field.name)).all(), field.name


def test_the_bms_counts_its_own_current_over_the_nominal_capacity(fleet: CircuitFleet) -> None:
    for log in logs(fleet):
        counted_ah = np.cumsum(log.current_a) * LOG_INTERVAL_S / 3600.0
        assert log.discharged_ah == pytest.approx(counted_ah)
        expected = log.start_soc_percent - 100.0 * log.discharged_ah / NEW_CAPACITY_AH
        assert log.soc_percent == pytest.approx(expected)
        assert log.start_soc_percent <= 100.0


def test_the_drift_of_the_counter_is_that_of_its_sensor() -> None:
    """New cells: the BMS's nominal capacity is right, what is left of the error is the offset's."""
    fleet = simulate_circuit_fleet(CircuitFleetSettings(40, 1, 11))
    ends = [log for log in logs(fleet) if log.voltage_v[-1] < 3.05]
    assert len(ends) > 3
    for log in ends:
        hours = log.time_s[-1] / 3600.0
        drift = 4.0 * (100.0 * CURRENT_OFFSET_A * hours / NEW_CAPACITY_AH + 100.0 * START_SOC_ERROR)
        assert log.soc_percent[-1] == pytest.approx(8.0, abs=8.0 + drift)


def test_an_aged_battery_is_empty_before_its_bms_believes_it() -> None:
    settings = CircuitFleetSettings(6, 6, 5, km_between_trips=40_000.0)
    fleet = simulate_circuit_fleet(settings)
    surprised = [
        trip.log.soc_percent[-1]
        for vehicle in fleet.vehicles
        for trip in vehicle.trips[-2:]
        if trip.log.voltage_v[-5:].min() < 3.0
    ]
    assert len(surprised) > 2
    assert min(surprised) > 10.0


# The same seed, the same bits


@pytest.mark.parametrize("other", [(5, 5, 40_000.0), (3, 3, 40_000.0), (1, 5, 40_000.0)])
def test_a_vehicle_does_not_depend_on_the_fleet_around_it_or_the_trips_to_come(
    fleet: CircuitFleet, other: tuple[int, int, float]
) -> None:
    vehicles, trips, km = other
    again = simulate_circuit_fleet(CircuitFleetSettings(vehicles, trips, 7, km))
    for mine, theirs in zip(fleet.vehicles, again.vehicles, strict=False):
        for a, b in zip(mine.trips, theirs.trips, strict=False):
            assert (a.cell.capacity_ah, a.ambient_c) == (b.cell.capacity_ah, b.ambient_c)
            for field in fields(a.log):
                same = np.array_equal(getattr(a.log, field.name), getattr(b.log, field.name))
                assert same, field.name


def test_another_seed_gives_another_fleet(fleet: CircuitFleet) -> None:
    other = simulate_circuit_fleet(CircuitFleetSettings(1, 1, 8))
    assert other.vehicles[0].trips[0].ambient_c != fleet.vehicles[0].trips[0].ambient_c


@pytest.mark.parametrize(
    ("setting", "value"),
    [("vehicles", 0), ("trips", 0), ("seed", -1), ("km_between_trips", 100.0)],
)
def test_a_setting_without_sense_is_refused_by_name(setting: str, value: float) -> None:
    good = {"vehicles": 2, "trips": 2, "seed": 1}
    with pytest.raises(SettingsError, match="use") as caught:
        CircuitFleetSettings(**{**good, setting: value})  # type: ignore[arg-type]
    assert caught.value.setting == setting


def test_a_fleet_beyond_memory_is_refused_before_it_is_tried() -> None:
    with pytest.raises(SettingsError, match="smaller fleets"):
        CircuitFleetSettings(vehicles=100_000, trips=100, seed=1)


# Files and command


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


def test_the_tables_hold_what_was_simulated_each_in_its_place(
    tmp_path: Path, fleet: CircuitFleet
) -> None:
    write_circuit_fleet(fleet, tmp_path / "out")
    tables = {table: read(tmp_path / "out", table) for table in TABLES}
    for table, frame in tables.items():
        assert list(frame.columns) == list(COLUMNS[table])
    assert len(tables[TRIPS]) == len(tables[TRUTH]) == 15
    trip, which = fleet.vehicles[2].trips[1], {"vehicle_id": "V003", "trip_id": "T0002"}

    def rows(table: str) -> pd.DataFrame:
        frame = tables[table]
        return frame[(frame[list(which)] == pd.Series(which)).all(axis=1)]

    curve = rows(DISCHARGE_CURVES)
    assert curve["voltage_v"].tolist() == trip.log.voltage_v.tolist()
    assert curve["unix_time_s"].tolist() == (trip.started_at_s + trip.log.time_s).tolist()
    assert set(curve["start_soc_percent"]) == {trip.log.start_soc_percent}
    assert rows(TRIPS)["odometer_end_km"].item() == curve["odometer_km"].iloc[-1]
    truth = rows(TRUTH).iloc[0]
    assert truth["state_of_health"] == float(trip.cell.capacity_ah) / NEW_CAPACITY_AH
    assert truth["usable_charge_ah"] == usable_charge_ah(trip.cell)


def test_the_truth_is_never_in_a_file_that_a_twin_reads(
    tmp_path: Path, fleet: CircuitFleet
) -> None:
    write_circuit_fleet(fleet, tmp_path / "out")
    secret = read(tmp_path / "out", TRUTH)
    aged = secret[secret["trip_id"] != "T0001"].drop(columns=["vehicle_id", "trip_id"])
    for table in (TRIPS, DISCHARGE_CURVES):
        frame = read(tmp_path / "out", table)
        assert not set(aged.columns) & set(frame.columns)
        numbers = {x for name in frame.select_dtypes("number") for x in frame[name].unique()}
        assert not numbers & set(aged.to_numpy().ravel().tolist())


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_command_writes_the_same_bytes_for_the_same_seed(
    tmp_path: Path, file_format: FileFormat
) -> None:
    contents = []
    for name in ("a", "b"):
        arguments = [
            *("fleet", "--cell", "equivalent-circuit", "--vehicles", "2", "--trips", "2"),
            *("--km-between-trips", "20000", "--format", file_format, "--json"),
        ]
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.stderr
        summary = json.loads(result.stdout)
        assert (summary["vehicles"], summary["trips"], summary["odometer_km"]) == (2, 4, 20_000.0)
        assert 0.8 < summary["lowest_state_of_health_at_end"] < 1.0
        contents.append([Path(file).read_bytes() for file in summary["files"]])
    assert contents[0] == contents[1]


def test_an_earlier_fleet_of_the_other_kind_may_be_replaced(
    tmp_path: Path, fleet: CircuitFleet
) -> None:
    published = ["fleet", "--vehicles", "1", "--trips", "1", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, published).exit_code == 0
    write_circuit_fleet(fleet, tmp_path / "out")
    assert len(read(tmp_path / "out", TRIPS)) == 15


@pytest.mark.parametrize(
    "options",
    [
        ("--km-between-trips", "2000"),
        ("--cell", "equivalent-circuit", "--km-between-trips", "10"),
        ("--cell", "lead-acid"),
    ],
)
def test_nonsense_is_refused_as_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    arguments = ["fleet", "--vehicles", "1", "--trips", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "out").exists()
