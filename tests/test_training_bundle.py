"""Training: from a table to a bundle that vehicles can run, or to an error without a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from cloud.training import fit
from cloud.training.candidates import Overrides
from cloud.training.cli import register
from cloud.training.errors import (
    ForwardMismatchError,
    OptionError,
    OutputExistsError,
    TableError,
    TrainingRecordError,
    UnknownCandidateError,
)
from cloud.training.network import NETWORK_FILE, load_record
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.sobol import SobolSettings
from cloud.training.splits import held_out_rows
from cloud.training.table import TripChoice
from cloud.training.train import TrainingReport, train_bundle
from common.bundle import MODEL_FILE, load_bundle
from common.errors import BundleError
from common.manifest import MovingAverage
from common.model import VoltageModel

TODAY = date(2026, 1, 2)
SETTINGS = TrainingSettings(
    features=("distance_km", "speed_m_s"),
    target="voltage_v",
    trips=TripChoice(None),
    hidden=(4,),
    sobol=SobolSettings(64),
)


def write_table(folder: Path, *, volts: float = 4.0, name: str = "trips.csv") -> Path:
    """Ten trips of two vehicles whose voltage falls with distance, faster at speed."""
    rng = np.random.default_rng(1)
    trip, row = np.unravel_index(np.arange(400), (10, 40))
    speed = rng.uniform(10.0, 30.0, 10)[trip]
    distance = row * 5.0
    energy = distance * (1 + speed / 60) / 250
    voltage = volts * (1 - 0.2 * energy - 0.2 / (1 + np.exp(12 * (1.0 - energy))))
    table = pd.DataFrame(
        {
            "vehicle_id": [f"V{t % 2}" for t in trip],
            "trip_id": [f"T{t // 2}" for t in trip],
            "time_s": row * 60.0,
            "distance_km": distance,
            "speed_m_s": speed,
            "voltage_v": voltage + rng.normal(0, 0.002 * volts, 400),
        }
    )
    path = folder / name
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "RESTARTS", 2)
        patch.setattr(fit, "RESTART_ITERATIONS", 50)
        patch.setattr(fit, "FINAL_ITERATIONS", 300)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def trained(table: Path) -> TrainingReport:
    return train_bundle(SETTINGS, table, table.parent / "bundle", TODAY)


def test_a_trained_bundle_loads_and_predicts_the_trips(
    trained: TrainingReport, table: Path
) -> None:
    bundle = load_bundle(trained.bundle.path)
    data = pd.read_csv(table)
    nominal = [p.nominal for p in bundle.manifest.parameters]
    found = VoltageModel(bundle).predict(data[["distance_km", "speed_m_s"]], nominal)
    assert np.sqrt(np.square(found - data["voltage_v"]).mean()) < 0.03
    assert trained.held_out.rmse_v < 0.05
    assert trained.forward_error_v <= 1e-5


def test_the_report_and_the_provenance_say_where_the_bundle_comes_from(
    trained: TrainingReport, table: Path
) -> None:
    provenance = trained.bundle.manifest.provenance
    assert (trained.rows, trained.trips, trained.vehicles, trained.held_out_trips) == (
        400,
        10,
        2,
        2,
    )
    assert provenance["table"] == "trips.csv"
    assert provenance["trained_on"] == "2026-01-02"
    assert provenance["held_out"]["rmse_v"] == round(trained.held_out.rmse_v, 6)
    for file in trained.bundle.path.glob("*.json"):
        assert str(table.parent) not in file.read_text()


def test_the_manifest_follows_from_the_table(trained: TrainingReport, table: Path) -> None:
    manifest = trained.bundle.manifest
    distance = manifest.features[0]
    assert (distance.unit, manifest.features[1].unit) == ("km", "m/s")
    assert distance.minimum <= 0
    assert distance.maximum >= 2 * 195
    lowest = pd.read_csv(table)["voltage_v"].min()
    assert manifest.cutoff_voltage_v == pytest.approx(lowest)
    assert manifest.target.minimum == 0.0
    assert manifest.model_discrepancy_std_v == pytest.approx(
        max(trained.held_out.rmse_v**2 - 0.01**2, 0.001**2) ** 0.5, abs=1e-5
    )


def test_health_sweeps_the_one_feature_that_grows_along_a_trip(trained: TrainingReport) -> None:
    health = trained.bundle.manifest.health
    assert health is not None
    assert (health.swept_feature, health.start, health.stop) == ("distance_km", 0.0, 1.5 * 195)
    assert set(health.reference) == {"speed_m_s"}


def test_a_cutoff_that_is_never_reached_leaves_health_out_and_says_so(
    table: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, cutoff_voltage_v=0.5)
    report = train_bundle(settings, table, tmp_path / "b", TODAY)
    assert report.bundle.manifest.health is None
    assert "0.5 V" in report.warnings[0]
    with pytest.raises(OptionError, match=r"0\.5 V"):
        train_bundle(replace(settings, health_sweep="distance_km"), table, tmp_path / "c", TODAY)


def test_the_selected_parameters_are_inputs_of_the_graph(trained: TrainingReport) -> None:
    manifest = trained.bundle.manifest
    assert manifest.sensitivity is not None
    selected = {index.name for index in manifest.sensitivity.indices if index.selected}
    assert selected == set(manifest.parameter_names)
    assert len(selected) == 2
    model = VoltageModel(trained.bundle)
    nominal = np.array([p.nominal for p in manifest.parameters])
    for p in range(2):
        moved = nominal + 0.1 * (np.arange(2) == p)
        assert abs(model.predict([[150.0, 20.0]], moved) - model.predict([[150.0, 20.0]], nominal))


def test_the_same_table_and_seed_give_the_same_bundle(
    trained: TrainingReport, table: Path, tmp_path: Path
) -> None:
    again = train_bundle(SETTINGS, table, tmp_path / "again", TODAY)
    assert again.bundle.sha256 == trained.bundle.sha256
    for name in (MODEL_FILE, NETWORK_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (trained.bundle.path / name).read_bytes()


def test_the_training_record_survives_a_round_trip(trained: TrainingReport) -> None:
    record = load_record(trained.bundle.path)
    assert record.network.input_count == 2
    assert record.network.last_hidden_count == 4
    assert record.feature_ranges[0].tolist() == [0.0, 195.0]


def test_a_damaged_training_record_is_refused(trained: TrainingReport, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    raw = (trained.bundle.path / NETWORK_FILE).read_bytes()
    for content in (b"", b"no archive", raw[: len(raw) // 2]):
        (tmp_path / NETWORK_FILE).write_bytes(content)
        with pytest.raises(TrainingRecordError, match="cannot be read"):
            load_record(tmp_path)


def test_a_bundle_whose_model_was_changed_is_refused(
    trained: TrainingReport, tmp_path: Path
) -> None:
    for file in trained.bundle.path.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    raw = bytearray((tmp_path / MODEL_FILE).read_bytes())
    raw[-20] ^= 1
    (tmp_path / MODEL_FILE).write_bytes(raw)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(tmp_path)


def test_an_occupied_destination_is_refused_before_the_work_and_left_as_it_is(
    trained: TrainingReport, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match="left as it is"):
        train_bundle(SETTINGS, tmp_path / "no such table.csv", tmp_path, TODAY)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    before = load_bundle(trained.bundle.path).sha256
    with pytest.raises(OutputExistsError):
        train_bundle(replace(SETTINGS, seed=9), table, trained.bundle.path, TODAY)
    assert load_bundle(trained.bundle.path).sha256 == before


def test_training_again_into_the_same_bundle_changes_nothing(
    trained: TrainingReport, table: Path
) -> None:
    report = train_bundle(SETTINGS, table, trained.bundle.path, TODAY)
    assert report.bundle.sha256 == trained.bundle.sha256


def test_a_failed_training_leaves_nothing_behind(table: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, choice=Choice(names=("gain:unknown",)))
    with pytest.raises(UnknownCandidateError, match="gain:distance_km"):
        train_bundle(settings, table, tmp_path / "deep" / "bundle", TODAY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"units": {"distance": "km"}}, "unit"),
        ({"ranges": {"distance": (0.0, 1.0)}}, "range"),
        ({"health_sweep": "speed"}, "health-sweep"),
        ({"reference": {"voltage_v": 1.0}}, "reference"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (0,)}, "hidden"),
        ({"features": ("distance_km", "voltage_v")}, "target"),
        ({"overrides": Overrides(prior_std={"gain:speed": 0.1})}, "no candidate"),
        ({"overrides": Overrides(prior_std={"gain:output": 0.0})}, "not positive"),
        ({"overrides": Overrides(bounds={"gain:output": (2.0, 3.0)})}, "enclose"),
        ({"overrides": Overrides(process_noise={"gain:output": -1.0})}, "negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    table: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        train_bundle(replace(SETTINGS, **change), table, tmp_path / "b", TODAY)
    assert not (tmp_path / "b").exists()


def test_more_weights_than_rows_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="too few for"):
        train_bundle(replace(SETTINGS, hidden=(40, 40)), table, tmp_path / "b", TODAY)


def test_a_model_that_differs_from_the_training_library_is_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit.fit_network

    def skewed(*arguments: Any) -> Any:
        fitted = whole(*arguments)
        return replace(fitted, library_forward=lambda x: fitted.library_forward(x) + 1e-3)

    monkeypatch.setattr("cloud.training.train.fit_network", skewed)
    with pytest.raises(ForwardMismatchError, match=r"0\.001 V"):
        train_bundle(SETTINGS, table, tmp_path / "b", TODAY)
    assert not (tmp_path / "b").exists()


def test_a_pack_with_a_moving_average_and_a_group_gain_trains(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS,
        moving_averages={"slow_km": MovingAverage("distance_km", 300.0)},
        choice=Choice(names=("gain:distance_km+slow_km", "offset:output")),
        overrides=Overrides(
            prior_std={"offset:output": 7.0}, rate_prior_std={"offset:output": 1e-3}
        ),
    )
    report = train_bundle(settings, write_table(tmp_path, volts=370.0), tmp_path / "pack", TODAY)
    manifest = report.bundle.manifest
    assert manifest.feature_names == ("distance_km", "speed_m_s", "slow_km")
    assert manifest.features[2].moving_average == MovingAverage("distance_km", 300.0)
    assert manifest.parameter_names == ("gain:distance_km+slow_km", "offset:output")
    assert (manifest.parameters[1].prior_std, manifest.parameters[1].rate_prior_std) == (7.0, 1e-3)
    assert manifest.parameters[1].unit == "V"


def test_whole_trips_are_held_out() -> None:
    trip = np.repeat(np.arange(10), 7)
    held = held_out_rows(trip, np.random.default_rng(0))
    assert len(set(trip[held])) == 2
    assert not set(trip[held]) & set(trip[~held])
    assert held_out_rows(np.zeros(10, dtype=np.intp), np.random.default_rng(0)).sum() == 2


@pytest.fixture
def cli() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_the_command_trains_and_ranks_again(cli: typer.Typer, table: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    options = ["--features", "distance_km,speed_m_s", "--target", "voltage_v", "--hidden", "4"]
    options += ["--trips", "all", "--samples", "64", "--cutoff-voltage", "2.5"]
    done = run(cli, ["train", str(table), *options, "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    assert "held-out trips" in done.stdout
    for told in ("group, varied as one", "condition number", "that trips can tell apart:"):
        assert told in done.stdout
    chosen = ["--parameters", "offset:output", "--prior", "offset:output=0.3", "--samples", "64"]
    again = [str(tmp_path / "one"), *chosen, "--out", str(tmp_path / "two"), "--json"]
    done = run(cli, ["sensitivity", *again])
    assert done.exit_code == 0, done.output
    indices = {index["name"]: index for index in json.loads(done.stdout)["indices"]}
    assert [name for name, index in indices.items() if index["selected"]] == ["offset:output"]
    manifest = load_bundle(tmp_path / "two").manifest
    assert manifest.parameter_names == ("offset:output",)
    assert manifest.parameters[0].prior_std == 0.3
    assert manifest.cutoff_voltage_v == 2.5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["train", "none.csv", "--features", "a", "--target", "v", "--out", "b"],
            1,
            "No such file",
        ),
        (["train", "t.csv", "--features", "a", "--target", "v", "--out", "."], 4, "left as it is"),
        (
            ["train", "t.csv", "--features", "a", "--target", "v", "--out", "b", "--trips", "9"],
            2,
            "",
        ),
        (["sensitivity", "none"], 1, "cannot be read"),
        (["sensitivity", "none", "--samples", "100"], 2, "power of two"),
        (["import-model", "none.tflite", "--manifest", "none.json", "--out", "b"], 4, "No such"),
    ],
)
def test_a_failing_command_says_one_sentence_and_has_its_exit_code(
    cli: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
