"""PostgreSQL itself keeps revisions append-only and chained, also from the service's own role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from cloud.errors import StoreError
from cloud.location import PostgresUrl
from cloud.store import verification
from cloud.store.database import Store, upgrade
from cloud.store.verification import Verified
from demo.database import PrivatePostgres
from tests.cloud_doubles import Insides, write_bundle

ROLES = Path(__file__).parent.parent / "deploy" / "cloud" / "postgres-roles.sql"
COLUMNS = (
    "vehicle_id, number, bundle, odometer, cause_message_id, content, hash, key_id, signature, "
    "created_at, parent_hash"
)


@pytest.fixture(scope="module")
def as_service(
    postgres: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Insides]:
    """A service that runs as `twin_service`; its vehicle has three revisions."""
    postgres.create("guarded")
    with psycopg.connect(postgres.url("guarded"), autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
    upgrade(PostgresUrl(postgres.url("guarded", "twin_owner")))
    folder = tmp_path_factory.mktemp("guarded")
    url = PostgresUrl(postgres.url("guarded", "twin_service"))
    inside = Insides(folder, write_bundle(folder / "bundle"), url)
    for trip in (5, 10, 15):
        inside.take(inside.car().breach(trip), inside.car().trip(trip))
        inside.work()
    yield inside
    inside.store.close()
    postgres.drop("guarded")


def refused(inside: Insides, statement: str, kind: type[DBAPIError], why: str) -> None:
    before = inside.rows()
    with pytest.raises(kind, match=why), inside.store.write() as db:
        db.connection().execute(text(statement))
    assert inside.rows() == before
    assert len(before) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revision SET content = 'x'",
        "UPDATE revision SET hash = 'x' WHERE number = 2",
        "UPDATE revision SET number = 9 WHERE number = 3",
        "UPDATE revision SET parent_hash = 'x'",
        "DELETE FROM revision WHERE number = 3",
    ],
)
def test_a_revision_is_neither_changed_nor_removed(as_service: Insides, statement: str) -> None:
    refused(as_service, statement, IntegrityError, "append-only")


@pytest.mark.parametrize(
    ("number", "parent", "why"),
    [
        ("3", "hash", "a number does not follow"),
        ("4", "parent_hash", "a parent is not the newest"),
        ("9", "repeat('0', 64)", "a parent is not the newest"),
    ],
)
def test_a_revision_that_does_not_follow_the_newest_is_refused(
    as_service: Insides, number: str, parent: str, why: str
) -> None:
    values = re.sub(r"\bnumber\b", number, COLUMNS).replace("cause_message_id", "'new'")
    values = values.replace("parent_hash", parent)
    statement = f"INSERT INTO revision ({COLUMNS}) SELECT {values} FROM revision WHERE number = 3"
    refused(as_service, statement, IntegrityError, why)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE revision",
        "DROP TABLE revision",
        "ALTER TABLE revision DISABLE TRIGGER ALL",
        "DROP TRIGGER revision_is_not_updated ON revision",
        "CREATE OR REPLACE FUNCTION twin_refuse() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (x int)",
    ],
)
def test_the_service_cannot_take_the_guard_off(as_service: Insides, statement: str) -> None:
    refused(as_service, statement, DBAPIError, "must be owner|permission denied")


def test_the_owner_cannot_empty_the_table_by_mistake(
    as_service: Insides, postgres: PrivatePostgres
) -> None:
    with (
        psycopg.connect(postgres.url("guarded", "twin_owner")) as connection,
        pytest.raises(psycopg.IntegrityError, match="append-only"),
    ):
        connection.execute("TRUNCATE revision")


def test_a_service_without_tables_says_who_makes_them(postgres: PrivatePostgres) -> None:
    postgres.create("bare")
    with psycopg.connect(postgres.url("bare"), autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
    with pytest.raises(StoreError, match="twin-cloud database upgrade"):
        Store(PostgresUrl(postgres.url("bare", "twin_service")))
    postgres.drop("bare")


def test_a_reader_verifies_and_writes_nothing(
    as_service: Insides, postgres: PrivatePostgres
) -> None:
    store = Store(PostgresUrl(postgres.url("guarded", "twin_reader")))
    with store.read() as db:
        [found] = verification.verify_all(db, verification.remembered_keys(db))
    assert found == Verified("car", 3, as_service.rows()[-1].hash)
    with pytest.raises(DBAPIError, match="permission denied"), store.write() as db:
        db.connection().execute(text("UPDATE vehicle SET trips = 0"))
    store.close()
