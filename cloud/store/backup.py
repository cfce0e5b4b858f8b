"""A copy of the database while services run, and back again into an empty place.

SQLite by its backup API, PostgreSQL by its own programs. Must never write over what is there, and
never leave half a copy under the name of a whole one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from cloud.errors import BackupError
from cloud.location import Location, PostgresUrl
from cloud.store.database import version_of

_PAGES: Final = 1000  # copied at a time: writers get in between
_PART: Final = ".part"


def backup(location: Location, to: Path) -> None:
    """One state of the whole database in a new file. Raises BackupError, StoreError."""
    _require_new(to)
    version_of(location)
    part = to.with_name(to.name + _PART)
    part.unlink(missing_ok=True)
    try:
        if isinstance(location, PostgresUrl):
            _run(["pg_dump", "--format=custom", "--file", str(part)], location)
        else:
            _copy(location, part)
        _flush(part)
        _require_new(to)
        part.rename(to)
    finally:
        part.unlink(missing_ok=True)


def restore(location: Location, file: Path) -> str | None:
    """Fill an empty database, or a file that is not there; the version of its tables.

    All of it happens, or nothing. Raises BackupError, StoreError.
    """
    if not file.is_file():
        raise BackupError(file, "there is no such file")
    if not isinstance(location, PostgresUrl):
        _require_new(location)
        backup(file, location)
    elif version_of(location) is not None:
        raise BackupError(location, "it is not empty: give a new database")
    else:
        options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
        _run(["pg_restore", *options, "--dbname", _named(location), str(file)], location)
    return version_of(location)


def _copy(path: Path, to: Path) -> None:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True)) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy, pages=_PAGES)
            [problem] = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise BackupError(path, str(error)) from error
    if problem != "ok":
        raise BackupError(path, f"it is damaged ({problem})")


def _run(command: Sequence[str], location: PostgresUrl) -> None:
    """A program of PostgreSQL; the URL with its password goes by the environment."""
    program = shutil.which(command[0])
    if program is None:
        raise BackupError(location, f"{command[0]} is not installed: postgresql-client has it")
    arguments = [program, *command[1:]]
    if command[0] == "pg_dump":
        arguments += ["--dbname", _named(location)]
    done = subprocess.run(  # noqa: S603  # a fixed program
        arguments, check=False, capture_output=True, text=True, env=_environment(location)
    )
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackupError(location, f"{command[0]}: {problem}")


def _named(location: PostgresUrl) -> str:
    """The URL without its password: every user of the machine sees the arguments of a program."""
    return location.without_password


def _environment(location: PostgresUrl) -> Mapping[str, str]:
    password = location.password
    return os.environ | ({"PGPASSWORD": password} if password else {})


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _require_new(path: Path) -> None:
    if path.exists():
        raise BackupError(path, "it exists: give a new name, nothing is written over")
