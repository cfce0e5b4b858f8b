"""A list is one parameter: one statement for every length, and the rows that `IN` would find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, select
from sqlalchemy.dialects import sqlite

from cloud.location import Location, PostgresUrl
from cloud.store import locks
from cloud.store.database import Store
from cloud.store.membership import among
from cloud.store.tables import Breach, Vehicle
from demo.database import PrivatePostgres

NAMES = ["a", "b", 'with "quotes"', "ß", "[]", "null", "{}", "1"]
SQLITE = sqlite.dialect()
VEHICLES: Table = Vehicle.__table__  # type: ignore[attr-defined]
BREACHES: Table = Breach.__table__  # type: ignore[attr-defined]
OF_NAMES = select(VEHICLES.c.vehicle_id).where(among(VEHICLES.c.vehicle_id, "names"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    location: Location = tmp_path_factory.mktemp("membership") / "twin.db"
    if request.param == "postgresql":
        server: PrivatePostgres = request.getfixturevalue("postgres")
        location = PostgresUrl(server.create("membership"))
    opened = Store(location)
    with opened.write() as db:
        locks.add_vehicles(db, NAMES, 1.0)
    yield opened
    opened.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(wanted=st.lists(st.sampled_from([*NAMES, "nobody", ""])))
def test_it_finds_what_is_in_the_list_and_nothing_else(store: Store, wanted: list[str]) -> None:
    with store.read() as db:
        found = db.connection().execute(OF_NAMES, {"names": wanted}).scalars().all()
    assert sorted(found) == sorted(set(NAMES) & set(wanted))


def test_its_words_are_the_same_for_every_length_and_leave_the_index_usable() -> None:
    on_sqlite = str(OF_NAMES.compile(dialect=SQLITE))
    assert on_sqlite.endswith("WHERE vehicle.vehicle_id IN (SELECT value FROM json_each(?))")


def test_a_list_of_numbers_finds_numbers(store: Store) -> None:
    of_ids = select(BREACHES.c.id).where(among(BREACHES.c.id, "ids", numbers=True))
    with store.read() as db:
        assert db.connection().execute(of_ids, {"ids": [3, 1]}).all() == []


def test_a_file_is_not_walked_through_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "twin.db")
    for asked in (OF_NAMES, locks._LOCKED):
        words = str(asked.compile(dialect=SQLITE))
        with store.read() as db:
            plan = db.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", ("[]",)).all()
        assert not any(row[3].startswith("SCAN vehicle") for row in plan), plan
    store.close()
