"""A database of an older version is brought up to date, and nothing in it changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import select

from cloud.errors import StoreError
from cloud.store import verification
from cloud.store.database import Reader, Store
from cloud.store.tables import RevisionRow, Vehicle
from cloud.store.verification import Verified
from tests.cloud_doubles import Insides, write_bundle

VERSION_1 = Path(__file__).parent / "data" / "cloud_tables_1.sql"


def columns(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """Name, type, default and key of every column, by table."""
    with closing(sqlite3.connect(path)) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        query = "SELECT name, type, [notnull], pk FROM pragma_table_info(?)"
        return {name: set(db.execute(query, (name,))) for name in names}


def rules(path: Path) -> dict[str, str]:
    """The words of every index and trigger, however they are spaced."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            "SELECT name, sql FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL"
        )
        return {name: " ".join(sql.split()) for name, sql in rows}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Version 1, with a vehicle that has a revision and one that has none."""
    path = tmp_path / "twin.db"
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    inside.take(inside.car("a").breach(5), inside.car("b").trip(1))
    inside.work()
    inside.store.close()
    before = tmp_path / "before.db"
    path.rename(before)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1.read_text())
        db.execute("ATTACH ? AS newer", (str(before),))
        for table in ("vehicle", "trip", "breach", "revision", "signing_key"):
            names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM newer.{table}")
        db.commit()
    return path


def test_what_was_brought_up_to_date_has_the_tables_of_a_new_file(
    old: Path, tmp_path: Path
) -> None:
    Store(old).close()
    Store(tmp_path / "new.db").close()
    assert columns(old) == columns(tmp_path / "new.db")
    assert rules(old) == rules(tmp_path / "new.db")


def test_the_history_is_as_it_was_and_still_holds(old: Path) -> None:
    store = Store(old)
    with store.read() as db:
        [row] = db.exec(select(RevisionRow)).all()
        assert row.kind == "breach"
        [found] = verification.verify_all(db, verification.remembered_keys(db))
        assert found == Verified("a", 1, row.hash)
        started = {v.vehicle_id: v.started for v in db.exec(select(Vehicle))}
    assert started == {"a": True, "b": False}
    store.close()


def test_a_second_opening_changes_nothing(old: Path) -> None:
    Store(old).close()
    before = old.read_bytes()
    Store(old).close()
    assert old.read_bytes() == before


def test_a_reader_asks_for_the_service_to_be_started(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(StoreError, match=r"version 1.*Start the service on it once"):
        Reader(old)
    assert old.read_bytes() == before


def test_an_upgrade_that_fails_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.store.migrations._TRIGGERS_OF_NEW_TABLES", {1: ("CREATE NONSENSE",)})
    before = columns(old)
    with pytest.raises(StoreError, match="syntax error"):
        Store(old)
    assert columns(old) == before
