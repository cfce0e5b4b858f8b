"""`twin-cloud fleet-prior` and `battery-replaced`: every command says what it did, or why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.fleet_prior import decode_prior, prior_hash
from tests.cloud_doubles import Insides, write_bundle
from tests.support_command_line import twin_cloud
from tests.test_cloud_fleet_prior import drive, young_fleet

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet of three that has made its first prior; and a bundle without any vehicle."""
    folder = tmp_path_factory.mktemp("fleet")
    write_bundle(folder / "other", "other")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    young_fleet(inside)
    drive(inside, inside.car("d"), 1)
    inside.store.close()
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        database = folder / "twin.db"
        return twin_cloud(monkeypatch, capsys, *arguments, "--database", database)

    return call


def test_a_prior_is_shown_as_it_is_stored_and_by_parameter(run: Run, folder: Path) -> None:
    code, out, _ = run("fleet-prior", "show", "--bundle", folder / "bundle", "--json")
    prior = decode_prior(out.encode())
    assert (code, prior.version, prior.vehicles) == (0, 1, 3)
    _, listed, _ = run("fleet-prior", "list", "--json")
    assert json.loads(listed)[0]["hash"] == prior_hash(out.encode())
    _, table, _ = run("fleet-prior", "show", "--bundle", folder / "bundle")
    assert table.count("gain_distance") == len(prior.odometers)


def test_a_version_is_made_on_demand(run: Run, folder: Path) -> None:
    code, out, err = run("fleet-prior", "make", "--bundle", folder / "bundle")
    assert (code, "Made version 2" in err) == (0, True)
    _, listed, _ = run("fleet-prior", "list", "--json")
    assert [row["version"] for row in json.loads(listed)] == [1, 2]
    assert json.loads(listed)[1]["hash"] == out.strip()


def test_a_bundle_without_a_fleet_has_no_prior_and_that_is_said(run: Run, folder: Path) -> None:
    code, out, err = run("fleet-prior", "make", "--bundle", folder / "other")
    assert (code, out) == (1, "")
    assert "0 vehicles have revisions" in err
    code, out, err = run("fleet-prior", "show", "--bundle", folder / "other")
    assert (code, out) == (3, "")
    assert "has no fleet prior" in err


def test_a_replaced_battery_is_ordered_once(run: Run) -> None:
    code, out, err = run("battery-replaced", "a", "--by", "workshop", "--odometer", 20000)
    assert (code, out) == (0, "")
    assert "Ordered for odometer 20000" in err


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("nobody", "--by", "me"), 3, "no vehicle 'nobody'"),
        (("a", "--by", "me", "--odometer", "1"), 4, "was learned at odometer"),
        (("a", "--by", "me", "--odometer", "nan"), 4, "an odometer is between"),
        (("a",), 2, "--by"),
    ],
)
def test_an_order_that_cannot_be_is_refused(
    run: Run, arguments: tuple[str, ...], code: int, why: str
) -> None:
    found, out, err = run("battery-replaced", *arguments)
    assert (found, out) == (code, "")
    assert why in err
