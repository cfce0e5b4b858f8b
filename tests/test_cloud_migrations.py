"""A database of an older version is brought up to date, and nothing in it changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, insert, inspect, text
from sqlmodel import select

from cloud.audit.inputs import Inputs
from cloud.calibration import revising, rounds
from cloud.calibration.revising import Author
from cloud.errors import StoreError
from cloud.location import PostgresUrl
from cloud.store import migrations, postgres, verification
from cloud.store.database import Reader, Store, upgrade, version_of
from cloud.store.metadata import METADATA
from cloud.store.migrations import HEAD, RELEASED
from cloud.store.new_revisions import NewRevision
from cloud.store.tables import RevisionRow, Vehicle
from cloud.store.verification import Verified
from common.revision import Revision, encode_revision, revision_hash
from common.signing import sign
from demo.database import PrivatePostgres
from tests.cloud_doubles import Insides, write_bundle

DUMPS = Path(__file__).parent / "data"
SIGNED_NEW = revising.signed_new
FILLED = ("vehicle", "trip", "breach", "revision", "signing_key")
SCHEMA_OF_POSTGRES = """
SELECT table_name || '.' || column_name, data_type || ' ' || is_nullable || ' '
    || coalesce(column_default, '') || ' ' || coalesce(collation_name, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function ' || proname, pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
"""


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


def schema(url: PostgresUrl) -> dict[str, str]:
    """Every column, index, constraint, trigger and function of a PostgreSQL database."""
    engine = postgres.writing_engine(url)
    with engine.begin() as connection:
        found = {row[0]: row[1] for row in connection.execute(text(SCHEMA_OF_POSTGRES))}
    engine.dispose()
    return found


def without_inputs(revision: Revision, author: Author, _inputs: object) -> NewRevision:
    """As released versions made it: nothing was kept of what it was made from."""
    content = encode_revision(revision)
    signed = sign(content, author.key)
    row = SIGNED_NEW(revision, author, Inputs())
    row.content, row.hash, row.signature = content, revision_hash(content), signed.signature
    row.inputs = None  # type: ignore[assignment]
    return row


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest version, with a vehicle that has a revision and one that has none."""
    folder = tmp_path_factory.mktemp("filled")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    inside.take(inside.car("a").breach(5), inside.car("b").trip(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "signed_new", without_inputs)
        inside.work()
    inside.store.close()
    return inside.path


@pytest.fixture(params=RELEASED)
def old(request: pytest.FixtureRequest, tmp_path: Path, filled: Path) -> Path:
    """A file of a released version, with what `filled` has."""
    path = tmp_path / "twin.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DUMPS / f"cloud_tables_{request.param}.sql").read_text())
        db.execute("ATTACH ? AS newer", (str(filled),))
        for table in FILLED:
            names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM newer.{table}")
        db.commit()
    return path


def rows_of(filled: Path) -> dict[str, list[dict[str, Any]]]:
    store = Store(filled)
    with store.read() as db:
        found = {
            name: [dict(row) for row in db.connection().execute(table.select()).mappings()]
            for name, table in METADATA.tables.items()
            if name in FILLED
        }
    store.close()
    return found


def fill(connection: Connection, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Insert what these tables have columns for."""
    tables = MetaData()
    tables.reflect(connection, only=FILLED)
    for name, of_table in rows.items():
        table = tables.tables[name]
        kept = [{k: v for k, v in row.items() if k in table.c} for row in of_table]
        connection.execute(insert(table), kept)


@pytest.fixture(params=RELEASED)
def old_postgres(
    request: pytest.FixtureRequest, postgres: PrivatePostgres, filled: Path, tmp_path: Path
) -> Iterator[PostgresUrl]:
    """The same as a PostgreSQL database."""
    name = f"old_{tmp_path.name[-40:].lower()}"
    url = PostgresUrl(postgres.create(name))
    engine = postgres_engine(url)
    with engine.begin() as connection:
        migrations.upgrade(connection, request.param)
        fill(connection, rows_of(filled))
    engine.dispose()
    yield url
    postgres.drop(name)


def postgres_engine(url: PostgresUrl) -> Any:
    return postgres.writing_engine(url)


def test_what_was_brought_up_to_date_has_the_tables_of_a_new_file(
    old: Path, tmp_path: Path
) -> None:
    Store(old).close()
    Store(tmp_path / "new.db").close()
    assert columns(old) == columns(tmp_path / "new.db")
    assert rules(old) == rules(tmp_path / "new.db")


def test_what_was_made_step_by_step_has_the_tables_of_a_new_file(tmp_path: Path) -> None:
    from cloud.store import sqlite

    engine = sqlite.engine(tmp_path / "steps.db", "BEGIN IMMEDIATE")
    for version in (*RELEASED, HEAD):
        with engine.begin() as connection:
            migrations.upgrade(connection, version)
        dump = DUMPS / f"cloud_tables_{version}.sql"
        if dump.exists():
            with closing(sqlite3.connect(tmp_path / f"{version}.db")) as db:
                db.executescript(dump.read_text())
            released = columns(tmp_path / f"{version}.db")
            del released["schema_version"]
            made = columns(tmp_path / "steps.db")
            del made["alembic_version"]
            assert made == released
            assert rules(tmp_path / "steps.db") == rules(tmp_path / f"{version}.db")
    engine.dispose()
    Store(tmp_path / "new.db").close()
    assert columns(tmp_path / "steps.db") == columns(tmp_path / "new.db")
    assert rules(tmp_path / "steps.db") == rules(tmp_path / "new.db")


def test_a_postgresql_database_that_was_brought_up_to_date_is_like_a_new_one(
    old_postgres: PostgresUrl, postgres_database: PostgresUrl
) -> None:
    assert version_of(old_postgres) in RELEASED
    upgrade(old_postgres)
    assert schema(old_postgres) == schema(postgres_database)
    assert version_of(old_postgres) == HEAD


def require_history(store: Store) -> None:
    with store.read() as db:
        [row] = db.exec(select(RevisionRow)).all()
        assert row.kind == "breach"
        [found] = verification.verify_all(db, verification.remembered_keys(db))
        assert found == Verified("a", 1, row.hash)
        started = {v.vehicle_id: v.started for v in db.exec(select(Vehicle))}
    assert started["a"] is True


def test_the_history_is_as_it_was_and_still_holds(old: Path) -> None:
    store = Store(old)
    require_history(store)
    store.close()


def test_the_history_in_postgresql_is_as_it_was_and_still_holds(old_postgres: PostgresUrl) -> None:
    upgrade(old_postgres)
    store = Store(old_postgres)
    require_history(store)
    store.close()


def test_a_second_opening_changes_nothing(old: Path) -> None:
    Store(old).close()
    before = old.read_bytes()
    Store(old).close()
    assert upgrade(old) == (HEAD, HEAD)
    assert old.read_bytes() == before


def test_a_reader_asks_for_the_service_to_be_started(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(StoreError, match=r"version \d.*Start the service on it once"):
        Reader(old)
    assert old.read_bytes() == before


def test_a_service_leaves_an_older_postgresql_database_to_the_upgrade(
    old_postgres: PostgresUrl,
) -> None:
    before = schema(old_postgres)
    with pytest.raises(StoreError, match="twin-cloud database upgrade"):
        Store(old_postgres)
    assert schema(old_postgres) == before


def test_an_upgrade_that_fails_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_connection: object) -> None:
        raise sqlite3.OperationalError

    monkeypatch.setattr("cloud.store.lanes.fill", fail)
    before = columns(old)
    with pytest.raises(sqlite3.OperationalError):
        Store(old)
    assert columns(old) == before


def test_an_index_of_some_rows_is_one_on_both_and_numbers_are_long(
    postgres_database: PostgresUrl,
) -> None:
    engine = postgres.writing_engine(postgres_database)
    for table in METADATA.tables.values():
        for index in table.indexes:
            options = index.dialect_options
            assert (options["sqlite"]["where"] is None) == (
                options["postgresql"]["where"] is None
            ), index.name
    with engine.begin() as connection:
        for name in METADATA.tables:
            for column in inspect(connection).get_columns(name):
                assert str(column["type"]) != "INTEGER", (name, column["name"])
    engine.dispose()
