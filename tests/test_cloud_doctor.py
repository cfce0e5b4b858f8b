"""`twin-cloud doctor`: what it finds in the database and hears from the service."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from cloud.api.access import Context
from cloud.commands.doctor import doctor
from cloud.store import recent
from cloud.store.tables import Breach
from tests.cloud_doubles import NOW, Insides, serving, write_bundle


@pytest.fixture
def insides(tmp_path: Path) -> Iterator[Insides]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    yield inside
    inside.store.close()


Capture = pytest.CaptureFixture[str]


def findings(capsys: Capture) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in json.loads(capsys.readouterr().out)}


def test_a_service_that_keeps_up_is_well(insides: Insides, tmp_path: Path, capsys: Capture) -> None:
    car = insides.car()
    insides.take(car.breach(1), car.status(outbox_depth=4), *(car.trip(n) for n in range(30)))
    insides.now += 0.25
    insides.work()
    assert doctor(tmp_path / "twin.db", None, NOW + 10.0, as_json=True)
    found = findings(capsys)
    assert found["pending breaches"]["value"] == 0
    assert found["trips ingested"]["value"] == 0.5
    assert found["revisions made"]["value"] == pytest.approx(1 / 60, abs=1e-3)
    assert found["breach to push, p99"]["value"] == 0.25
    assert found["vehicles with an outbox"]["value"] == 1
    assert found["messages in outboxes"]["value"] == 4
    assert all(one["ok"] for one in found.values())


def test_a_breach_that_waits_too_long_is_a_problem(
    insides: Insides, tmp_path: Path, capsys: Capture
) -> None:
    insides.take(insides.car().breach(1))
    assert not doctor(tmp_path / "twin.db", None, NOW + 61.0, as_json=True)
    lag = findings(capsys)["lag"]
    assert (lag["value"], lag["ok"]) == (61.0, False)
    assert "worker" in lag["problem"]


def test_tables_of_another_version_are_a_problem(
    insides: Insides, tmp_path: Path, capsys: Capture
) -> None:
    insides.store.close()
    with sqlite3.connect(tmp_path / "twin.db") as db:
        db.execute("UPDATE alembic_version SET version_num = 99")
    db.close()
    assert not doctor(tmp_path / "twin.db", None, NOW, as_json=True)
    assert "99" in findings(capsys)["migrations"]["problem"]


def test_the_service_itself_is_asked_and_what_fails_is_named(
    insides: Insides, tmp_path: Path, capsys: Capture
) -> None:
    checks = {"database": lambda: None, "broker": lambda: "there is no connection"}
    context = Context(insides.store, insides.catalogue, lambda: NOW, checks)
    with serving(context) as client:
        assert not doctor(tmp_path / "twin.db", str(client.base_url), NOW, as_json=True)
    found = findings(capsys)
    assert found["service"]["ok"]
    assert found["broker"]["problem"] == "there is no connection"
    assert not doctor(tmp_path / "twin.db", "http://127.0.0.1:9", NOW, as_json=True)
    assert not findings(capsys)["service"]["ok"]


def test_the_table_is_for_people(insides: Insides, tmp_path: Path, capsys: Capture) -> None:
    assert doctor(tmp_path / "twin.db", None, NOW, as_json=False)
    assert "breach to push, p99" in capsys.readouterr().out


def test_a_rate_above_the_rows_that_are_read_is_taken_over_their_own_time(
    insides: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "ROWS", 20)
    car = insides.car()
    for second in range(5):
        insides.now = NOW + second
        insides.take(*(car.trip(10 * second + n) for n in range(10)))
    with insides.store.read() as db:
        assert recent.trips_per_s(db, NOW + 5.0, 60.0) == pytest.approx(10.0)
        assert db.exec(select(Breach)).first() is None
