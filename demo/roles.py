"""The service's roles as the processes that a user would run: start, kill, stop, wait until ready.

For tests, demonstration and benches, beside `PrivateBroker` and `PrivatePostgres`. Must never reach
into a process: everything goes through its command line, its ports and its log.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from common.errors import TwinError

Role = Literal["ingest", "worker", "api", "serve"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_READY: Final = re.compile(r"event\W+ready\W.*?api\W+(\S+?)[\",\s]")  # as text or as JSON
_HEALTH: Final = re.compile(r"event\W+health_listens\W.*?address\W+(\S+?)[\",\s]")
_START_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 60.0
_POLL_S: Final = 0.01


class RoleFailed(TwinError):  # noqa: N818 - reads as the state it is
    """A role ended, or did not become ready."""

    def __init__(self, name: str, log: str) -> None:
        super().__init__(f"The role {name} is not running. Its log ends:\n{log[-2000:]}")


def write_config(
    folder: Path, *, broker_port: int, store: str, bundle: Path, key: Path, more: str = ""
) -> Path:
    """A configuration of all roles; the API's and the health checks' ports are any free ones.

    `store` is a postgresql:// URL, or the path of a SQLite file.
    """
    place = "url" if "://" in store else "path"
    path = folder / "twin-cloud.toml"
    path.write_text(
        f'[mqtt]\nport = {broker_port}\n[store]\n{place} = "{store}"\n'
        f'[bundles]\npaths = ["{bundle}"]\n'
        f'[keys]\nprivate = "{key}"\n[api]\nport = 0\n[health]\nport = 0\n{more}',
        encoding="utf-8",
    )
    return path


class RoleProcess:
    """`twin-cloud <role>` in a process of its own; a context manager. Its log is a file."""

    def __init__(
        self,
        role: Role,
        config: Path,
        name: str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        program: str = "cloud.cli",
    ) -> None:
        """`program` is a module that takes the arguments of `twin-cloud`: a test has its own."""
        self.role, self.name = role, name or role
        self._program = program
        self._arguments = [role, "--config", str(config)]
        if role == "ingest" and name is not None:
            self._arguments += ["--instance", name]
        self._environment = dict(environment or {})
        self._path = config.parent / f"{self.name}.log"
        self._seen = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the present or last life."""
        return self._started().pid

    @property
    def log(self) -> str:
        """What it has written in its present or last life."""
        return self._path.read_bytes()[self._seen :].decode(errors="replace")

    def start(self) -> Self:
        """Begin a life; it may not be ready yet."""
        self._seen = self._path.stat().st_size if self._path.exists() else 0
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join(filter(None, [str(_ROOT), inherited]))
        with self._path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._program, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, **self._environment},
            )
        return self

    def wait_ready(self) -> Self:
        """Return once it says that it is. Raises RoleFailed."""
        self._await(_READY)
        return self

    def api(self) -> str:
        """Where its API answers. Raises RoleFailed."""
        return self._await(_READY)

    def health(self) -> str:
        """Where it answers health checks. Raises RoleFailed."""
        return self._await(_HEALTH)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._started().send_signal(number)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._process.wait(_STOP_DEADLINE_S)

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self._started().wait(_STOP_DEADLINE_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RoleFailed(self.name, "it was never started")
        return self._process

    def _await(self, said: re.Pattern[str]) -> str:
        end = time.monotonic() + _START_DEADLINE_S
        while True:
            found = said.search(self.log)
            if found:
                return found[1]
            if not self.running or time.monotonic() > end:
                raise RoleFailed(self.name, self.log)
            time.sleep(_POLL_S)


@contextlib.contextmanager
def running(*roles: RoleProcess) -> Iterator[None]:
    """All of these, started together, each ready; killed at the end."""
    with contextlib.ExitStack() as stack:
        for role in roles:
            stack.enter_context(role)
        for role in roles:
            role.wait_ready()
        yield
