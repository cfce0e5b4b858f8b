"""Many rows by one statement: as they were given, in their order, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, select
from sqlalchemy.exc import DataError
from sqlmodel import Session

from cloud.location import Location, PostgresUrl
from cloud.store.bulk import Insert, Update
from cloud.store.database import Store
from cloud.store.event_tables import Event
from demo.database import PrivatePostgres

EVENTS: Table = Event.__table__  # type: ignore[attr-defined]
NAMES = ["at", "kind", "vehicle_id", "cohort", "actor", "detail"]
ADD = Insert(EVENTS, NAMES)
ADD_NEW = Insert(
    EVENTS, NAMES, unless="(SELECT 1 FROM event AS e WHERE e.kind = r.kind LIMIT 1) IS NOT NULL"
)
CHANGE = Update(EVENTS, "id", ["at", "cohort", "detail"], only="event.actor IS NULL")
FEW = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
rows = st.fixed_dictionaries(
    {
        "at": st.floats(allow_nan=False, allow_infinity=False),
        "kind": texts,
        "vehicle_id": st.none() | texts,
        "cohort": st.none() | texts,
        "actor": st.none() | texts,
        "detail": st.binary(max_size=40),
    }
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    location: Location = tmp_path_factory.mktemp("bulk") / "twin.db"
    if request.param == "postgresql":
        server: PrivatePostgres = request.getfixturevalue("postgres")
        location = PostgresUrl(server.create("bulk"))
    opened = Store(location)
    yield opened
    opened.close()


def emptied(db: Session) -> None:
    db.connection().execute(delete(EVENTS))


def stored(db: Session) -> list[dict[str, Any]]:
    found = db.connection().execute(select(EVENTS).order_by(EVENTS.c.id))
    return [dict(row) for row in found.mappings()]


@FEW
@given(given_rows=st.lists(rows, max_size=6))
def test_rows_are_stored_as_they_were_given_and_in_their_order(
    store: Store, given_rows: list[dict[str, Any]]
) -> None:
    with store.write() as db:
        emptied(db)
        ADD.execute(db, given_rows)
        found = stored(db)
    assert [{name: row[name] for name in NAMES} for row in found] == given_rows


@FEW
@given(before=st.lists(rows, min_size=1, max_size=5), after=rows)
def test_only_the_named_columns_of_the_rows_that_may_change_do(
    store: Store, before: list[dict[str, Any]], after: dict[str, Any]
) -> None:
    with store.write() as db:
        emptied(db)
        ADD.execute(db, before)
        known = stored(db)
        new = {name: after[name] for name in ("at", "cohort", "detail")}
        changed = CHANGE.execute(db, [{"id": row["id"], **new} for row in known[1:]])
        found = stored(db)
    may = [row for row in known[1:] if row["actor"] is None]
    assert changed == len(may)
    assert found == [row | new if row in may else row for row in known]


def test_a_row_that_a_condition_rules_out_is_left_out(store: Store) -> None:
    one = {"at": 1.0, "vehicle_id": None, "cohort": None, "actor": None, "detail": b""}
    with store.write() as db:
        emptied(db)
        ADD.execute(db, [one | {"kind": "there"}])
        ADD_NEW.execute(db, [one | {"kind": "there"}, one | {"kind": "new"}])
        assert [row["kind"] for row in stored(db)] == ["there", "new"]


def test_nothing_to_write_is_no_statement(store: Store) -> None:
    with store.write() as db:
        ADD.execute(db, [])
        assert CHANGE.execute(db, []) == 0


def test_a_text_that_postgresql_cannot_hold_is_no_failure_of_the_database(store: Store) -> None:
    """Else ingest would wait for the database to come back, with the same message in its hand."""
    row = {"at": 1.0, "vehicle_id": "a\0b", "cohort": None, "actor": None, "detail": b""}
    is_file = isinstance(store.location, Path)
    with nullcontext() if is_file else pytest.raises(DataError), store.write() as db:
        ADD.execute(db, [row | {"kind": "k"}])
