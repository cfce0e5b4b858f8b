"""A backup taken while the service writes can be restored, and what is restored verifies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.errors import BackupError
from cloud.location import Location, PostgresUrl, located
from cloud.store import verification
from cloud.store.backup import backup, restore
from cloud.store.database import Reader, Store, version_of
from cloud.store.migrations import HEAD
from cloud.store.verification import Verified
from demo.database import PrivatePostgres
from tests.cloud_doubles import Insides, write_bundle
from tests.support_command_line import twin_cloud


@pytest.fixture
def programs(database: PostgresUrl | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the same version as the server come first."""
    if database is not None:
        import os

        from demo.database import find_programs

        monkeypatch.setenv("PATH", f"{find_programs()}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def inside(tmp_path: Path, database: PostgresUrl | None, programs: None) -> Iterator[Insides]:
    made = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)
    for trip in (5, 10):
        made.take(made.car().breach(trip))
        made.work()
    yield made
    made.store.close()


@pytest.fixture
def empty(
    tmp_path: Path, database: PostgresUrl | None, request: pytest.FixtureRequest
) -> Iterator[Location]:
    """Where to restore: a file that is not there, or a database without tables."""
    if database is None:
        yield tmp_path / "restored.db"
        return
    server: PrivatePostgres = request.getfixturevalue("postgres")
    yield PostgresUrl(server.create("restored"))
    server.drop("restored")


def chains(location: Location) -> list[object]:
    reader = Reader(location)
    with reader.read() as db:
        found: list[object] = list(verification.verify_all(db, verification.remembered_keys(db)))
    reader.close()
    return found


def test_what_is_restored_verifies_and_goes_on(
    inside: Insides, empty: Location, tmp_path: Path
) -> None:
    head = inside.rows()[-1].hash
    stop = threading.Event()

    def drives() -> None:
        trip = 0
        while not stop.is_set():
            trip += 1
            inside.take(inside.car("other").trip(trip))

    driving = threading.Thread(target=drives)
    driving.start()
    backup(inside.store.location, tmp_path / "backup")
    stop.set()
    driving.join()
    assert restore(empty, tmp_path / "backup") == HEAD
    assert chains(empty) == [Verified("car", 2, head)]
    other = Insides(
        tmp_path, tmp_path / "bundle", empty if isinstance(empty, PostgresUrl) else None
    )
    other.store.close()
    store = Store(empty)
    other.store = store
    other.start()
    other.take(other.car().breach(15))
    other.work()
    assert [row.number for row in other.rows()] == [1, 2, 3]
    store.close()


def test_nothing_is_written_over(inside: Insides, empty: Location, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    backup(inside.store.location, file)
    before = file.read_bytes()
    with pytest.raises(BackupError, match="it exists"):
        backup(inside.store.location, file)
    assert file.read_bytes() == before
    restore(empty, file)
    with pytest.raises(BackupError, match=r"it exists|not empty"):
        restore(empty, file)


def test_half_a_backup_restores_nothing(inside: Insides, empty: Location, tmp_path: Path) -> None:
    backup(inside.store.location, tmp_path / "backup")
    content = (tmp_path / "backup").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception, match=r"malformed|pg_restore|damaged"):
        restore(empty, tmp_path / "half")
    if isinstance(empty, Path):
        assert not empty.exists()
    else:
        assert version_of(empty) is None


def test_the_commands_say_what_they_did(
    inside: Insides,
    empty: Location,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        return twin_cloud(monkeypatch, capsys, "database", *arguments)

    def name(location: Location) -> str:
        return location.full if isinstance(location, PostgresUrl) else str(location)

    at = ("--database", name(inside.store.location))
    code, out, _ = run("status", *at, "--json")
    assert code == 0
    assert f'"version": "{HEAD}"' in out
    assert run("upgrade", *at)[0] == 0
    assert run("backup", tmp_path / "copy", *at)[:2] == (0, f"{tmp_path / 'copy'}\n")
    assert run("restore", tmp_path / "copy", "--database", name(empty))[0] == 0
    assert run("restore", tmp_path / "none", "--database", name(empty))[0] == 1


def test_the_arguments_of_a_program_hold_no_password() -> None:
    url = located("postgresql://twin:s%23cret@db:5432/twin?sslmode=require")
    assert isinstance(url, PostgresUrl)
    assert url.password == "s#cret"
    assert "cret" not in url.without_password
    assert "cret" not in str(url)
    assert url.without_password == "postgresql://twin:@db:5432/twin?sslmode=require"
    bare = located("postgres://twin@db/twin")
    assert isinstance(bare, PostgresUrl)
    assert (bare.full, bare.password) == ("postgresql://twin@db/twin", None)
