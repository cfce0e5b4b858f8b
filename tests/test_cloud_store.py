"""The database: append-only revisions, `verify` finds every edit, an unusable file stays intact."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import IntegrityError
from sqlmodel import text

from cloud.errors import StoreError, StoreUnavailableError
from cloud.store import verification
from cloud.store.database import Reader, Store
from cloud.store.verification import Verified
from common.errors import ChainError
from common.revision import revision_hash
from common.signing import key_id, sign
from tests.cloud_doubles import Insides, write_bundle
from tests.support_chains import tamper


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """The folder of a database in which two vehicles have five and three revisions."""
    inside = Insides(tmp_path_factory.mktemp("filled"), bundle_path)
    for trip in range(1, 6):
        cars = [inside.car("a"), *([inside.car("b")] if trip <= 3 else [])]
        inside.take(*(car.breach(5 * trip) for car in cars))
        inside.work()
    assert (len(inside.rows("a")), len(inside.rows("b"))) == (5, 3)
    inside.store.close()
    return inside.path.parent


@pytest.fixture
def inside(tmp_path: Path, filled: Path, bundle_path: Path) -> Iterator[Insides]:
    """The service's insides over a copy of `filled`."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    inside = Insides(tmp_path, bundle_path)
    yield inside
    inside.store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revision SET content = x'00' WHERE number = 1",
        "UPDATE revision SET hash = 'x' WHERE number = 1",
        "UPDATE revision SET number = 9 WHERE number = 5",
        "UPDATE revision SET vehicle_id = 'c' WHERE number = 1",
        "UPDATE revision SET signature = 'x' WHERE number = 1",
        "UPDATE revision SET odometer = 0",
        "UPDATE revision SET parent_hash = 'x'",
        "DELETE FROM revision WHERE number = 5",
        "INSERT OR REPLACE INTO revision SELECT * FROM revision WHERE number = 1",
        (
            "REPLACE INTO revision (vehicle_id, number, bundle, odometer, cause_message_id,"
            " content, hash, key_id, signature, created_at)"
            " VALUES ('a', 5, '', 0, 'new', x'', '', '', '', 0)"
        ),
    ],
)
def test_the_database_itself_refuses_to_change_or_remove_a_revision(
    inside: Insides, statement: str
) -> None:
    before = inside.rows("a") + inside.rows("b")
    with pytest.raises(IntegrityError, match="append-only"), inside.store.write() as db:
        db.connection().execute(text(statement))
    assert inside.rows("a") + inside.rows("b") == before


def test_a_verdict_and_the_publication_can_be_noted(inside: Insides) -> None:
    with inside.store.write() as db:
        db.connection().execute(text("UPDATE revision SET verdict = 'applied', published_at = 1"))
    assert {row.verdict for row in inside.rows("a")} == {"applied"}


def results(inside: Insides) -> dict[str, Verified | ChainError]:
    with inside.store.read() as db:
        found = list(verification.verify_all(db, verification.remembered_keys(db)))
    return {result.vehicle_id: result for result in found}


def test_untouched_chains_hold(inside: Insides) -> None:
    found = results(inside)
    assert found == {
        "a": Verified("a", 5, inside.rows("a")[-1].hash),
        "b": Verified("b", 3, inside.rows("b")[-1].hash),
    }


def edit(number: int, change: str) -> tuple[str, int]:
    """Change one revision of `a`."""
    return f"UPDATE revision SET {change} WHERE vehicle_id='a' AND number={number}", number


def rotated(column: str) -> str:
    return f"{column} = substr({column}, 2) || substr({column}, 1, 1)"


EDITS: dict[str, tuple[str, int]] = {
    "a parameter": edit(3, "content = replace(content, '\"theta\":[1', '\"theta\":[2')"),
    "one byte": edit(2, "content = CAST(substr(content, 1, 200) || ' ' AS BLOB)"),
    "the hash": edit(4, rotated("hash")),
    "the signature": edit(4, rotated("signature")),
    "no signature": edit(1, "signature = ''"),
    "a number for content": edit(2, "content = 7"),
    "garbage": edit(5, "content = x'FF'"),
    "an index column": edit(5, "odometer = 1"),
    "its kind": edit(4, "kind = 'replacement'"),
    "its parent's hash": edit(4, "parent_hash = 'x'"),
    "a middle row gone": ("DELETE FROM revision WHERE vehicle_id='a' AND number=3", 3),
    "the first row gone": ("DELETE FROM revision WHERE vehicle_id='a' AND number=1", 1),
    "the last row gone": ("DELETE FROM revision WHERE vehicle_id='a' AND number=5", 5),
    "all gone": ("DELETE FROM revision WHERE vehicle_id='a'", 1),
    "given to another": (
        "UPDATE revision SET vehicle_id='a', number=6 WHERE vehicle_id='b' AND number=3",
        6,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_verify_names_the_first_broken_link(inside: Insides, name: str) -> None:
    statement, number = EDITS[name]
    tamper(inside.path, statement)
    broken = results(inside)["a"]
    assert isinstance(broken, ChainError)
    assert (broken.vehicle_id, broken.number) == ("a", number)
    assert f"vehicle a breaks at revision {number}" in str(broken)


def test_verify_finds_two_rows_swapped(inside: Insides) -> None:
    tamper(
        inside.path,
        "UPDATE revision SET number=99 WHERE vehicle_id='a' AND number=2",
        "UPDATE revision SET number=2 WHERE vehicle_id='a' AND number=3",
        "UPDATE revision SET number=3 WHERE vehicle_id='a' AND number=99",
    )
    broken = results(inside)["a"]
    assert isinstance(broken, ChainError)
    assert broken.number == 2
    assert isinstance(results(inside)["b"], Verified)


def test_a_forger_without_the_key_is_found_although_every_hash_fits(inside: Insides) -> None:
    row = inside.rows("a")[-1]
    content = row.content.replace(b'"code_version":"0.1.0"', b'"code_version":"6.6.6"')
    forged = sign(content, Ed25519PrivateKey.from_private_bytes(b"f" * 32))
    tamper(
        inside.path,
        f"UPDATE revision SET content=CAST('{content.decode()}' AS BLOB),"
        f" hash='{revision_hash(content)}', signature='{forged.signature}' WHERE id={row.id}",
    )
    broken = results(inside)["a"]
    assert isinstance(broken, ChainError)
    assert "signature" in str(broken)


def test_a_key_given_from_outside_is_the_only_one_trusted(inside: Insides) -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32).public_key()
    with inside.store.read() as db:
        found = list(verification.verify_all(db, {key_id(other): other}))
    assert all(isinstance(result, ChainError) and result.number == 1 for result in found)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, but precious\n" * 1000)


def truncated(path: Path) -> None:
    Store(path).close()
    path.write_bytes(path.read_bytes()[:5000])


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()


def future(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '99'")
    db.close()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (garbage, "no SQLite file"),
        (truncated, "malformed"),
        (foreign, "another program's"),
        (future, "version 99"),
    ],
)
def test_an_unusable_file_gives_a_specific_error_and_stays_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "twin.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=why):
        Store(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_missing_or_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder does not exist"):
        Store(tmp_path / "no" / "twin.db")
    with pytest.raises(StoreError, match="directory"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="no such file"):
        Reader(tmp_path / "twin.db")
    assert list(tmp_path.iterdir()) == []


def test_commits_are_durable_and_concurrent_readers_see_the_last_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "twin.db")
    with store.read() as db:
        assert db.connection().scalar(text("PRAGMA journal_mode")) == "wal"
        assert db.connection().scalar(text("PRAGMA synchronous")) == 2
    with store.write() as writing:
        writing.connection().execute(text("INSERT INTO alembic_version VALUES (7)"))
        with store.read() as db:
            assert db.connection().scalar(text("SELECT count(*) FROM alembic_version")) == 1
    with store.read() as db:
        assert db.connection().scalar(text("SELECT count(*) FROM alembic_version")) == 2
    store.close()


def test_a_locked_database_is_a_transient_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "twin.db")
    holder = sqlite3.connect(tmp_path / "twin.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with store._writer.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.cursor().execute("PRAGMA busy_timeout = 1")
    with pytest.raises(StoreUnavailableError, match="locked"), store.write() as db:
        db.connection()
    holder.close()
    with store.write() as db:
        db.connection()
    store.close()


def test_the_content_survives_byte_for_byte(inside: Insides) -> None:
    row = inside.rows("a")[0]
    assert revision_hash(row.content) == row.hash
    assert json.loads(row.content)["vehicle_id"] == "a"
