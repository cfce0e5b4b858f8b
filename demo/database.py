"""A private PostgreSQL for demonstration and tests: start, stop, kill, restart.

It listens on a Unix socket in its own folder, so that it takes no port and nobody else's. Must
never touch a server it did not start. `python -m demo.database` says which programs it finds.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from common.errors import TwinError

_DEBIAN: Final = Path("/usr/lib/postgresql")
_OLDEST: Final = 14
_UNPRIVILEGED: Final = ("postgres", "nobody")
_START_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 30.0
_POLL_S: Final = 0.02
_PRIVATE: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}
_NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


class DatabaseUnavailable(TwinError):  # noqa: N818 - reads as the state it is
    """No PostgreSQL can run on this machine."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"No PostgreSQL can run here: {reason}. Install PostgreSQL {_OLDEST} or newer "
            "(Debian and Ubuntu: sudo apt-get install postgresql; macOS: brew install postgresql)."
        )


class PrivatePostgres:
    """A server process with its own cluster of databases; a context manager.

    `folder` keeps the cluster and is left alone at the end; without it a temporary one is used and
    removed. What is not `durable` is fast, and lost when the machine (not the server) fails.
    Raises DatabaseUnavailable.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        durable: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.programs = find_programs()
        self._user = _unprivileged_user()
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="twin-pg-"))
        self._settings = _PRIVATE | ({} if durable else _NOT_DURABLE) | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the server while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def log(self) -> str:
        """What it has written so far, over all its starts."""
        path = self.folder / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def url(self, name: str = "postgres", user: str = "twin") -> str:
        """Where a database of it is."""
        return f"postgresql://{user}@/{name}?host={self.folder}"

    def start(self) -> Self:
        """Start it, and return when it answers. Raises DatabaseFailedError."""
        if self.running:
            return self
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._initialise()
        with (self.folder / "server.log").open("ab") as log:
            self._process = self._begin(self._command(), log)
        try:
            self._await_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it in order; sessions that are open are cut off. Harmless when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # "fast shutdown"
        try:
            self._process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would; its children end by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> Self:
        """Stop it, start it, with the same databases."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop it and remove its temporary folder."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, name: str, template: str = "template1") -> str:
        """A new database, as a copy of `template`, to which nobody is connected; its URL."""
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def execute(self, statement: str, *names: str) -> None:
        """A statement of the superuser, outside any transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            composed: Any = sql.SQL(statement)
            connection.execute(composed.format(*(sql.Identifier(name) for name in names)))

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _initialise(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(self.folder, self._user, pwd.getpwnam(self._user).pw_gid)
        options = ["-U", "twin", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
        command = [str(self.programs / "initdb"), "-D", str(self.folder / "data"), *options]
        with (self.folder / "server.log").open("ab") as log:
            if self._begin([*command, "--no-sync"], log).wait(_START_DEADLINE_S):
                raise DatabaseFailedError(self.log)

    def _command(self) -> list[str]:
        settings = self._settings | {"unix_socket_directories": str(self.folder)}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *given]

    def _begin(self, command: Sequence[str], log: Any) -> subprocess.Popen[bytes]:
        """PostgreSQL refuses to run as root."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # Ctrl-C reaches the caller, who ends things in order
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _START_DEADLINE_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise DatabaseFailedError(self.log) from None
                time.sleep(_POLL_S)
            else:
                return


class DatabaseFailedError(TwinError):
    """The server ended, or did not come up in time."""

    def __init__(self, log: str) -> None:
        self.log = log
        last = log.strip().splitlines()[-1:] or ["it wrote nothing"]
        super().__init__(f"PostgreSQL did not start: {last[0]}. Correct its settings or folder.")


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`, the newest there is. Raises DatabaseUnavailable."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: -_major(path))
    beside_path = shutil.which("initdb")
    candidates = [*found, *([Path(beside_path)] if beside_path else [])]
    for initdb in candidates:
        if (initdb.parent / "postgres").exists():
            return initdb.parent
    raise DatabaseUnavailable("there is no initdb")


def _major(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdigit() else 0


def _unprivileged_user() -> str | None:
    """Whom it runs as: None where that is who runs this."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in _UNPRIVILEGED if name in known), None)
    if user is None:
        raise DatabaseUnavailable("root may not run it, and there is no user postgres or nobody")
    return user


def main() -> int:
    """Start one, say what it is, and end it."""
    try:
        with PrivatePostgres(durable=False) as server, psycopg.connect(server.url()) as connection:
            [version] = connection.execute("SHOW server_version").fetchone() or ("?",)
            print(f"PostgreSQL {version} ({server.programs})")
    except TwinError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
