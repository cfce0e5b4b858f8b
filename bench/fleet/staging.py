"""A whole installation for a measurement: broker, database, roles, each a process of its own.

Must never tune anything that a user's installation does not have.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import psycopg

from bench.fleet.usage import MIB
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.database import PrivatePostgres
from demo.roles import Role, RoleProcess, running, write_config
from demo.simulated import TRAINING_VEHICLES, train, training_settings

Backend = Literal["sqlite", "postgresql"]
THRESHOLD_V: Final = 0.05
SEED: Final = 900
# What was kept is read back by one key, all at once, when the load is over.
_READS_FREELY: Final = """[api.limits]
key_per_s = 100000.0
key_burst = 100000
address_per_s = 100000.0
address_burst = 100000
"""


@dataclass(frozen=True)
class Installation:
    """What runs. `database` is what `--database` takes; `api_key` a viewer's."""

    backend: Backend
    broker: PrivateBroker
    server: PrivatePostgres | None
    roles: Sequence[RoleProcess]
    public_key: Path
    database: str
    api_key: str

    @property
    def api(self) -> str:
        """Where it answers now."""
        return next(role.api() for role in self.roles if role.role in {"api", "serve"})

    @property
    def metrics(self) -> list[str]:
        """Where each process says what it counts."""
        return [
            f"{role.api() if role.role in {'api', 'serve'} else role.health()}/metrics"
            for role in self.roles
        ]

    def analyse(self) -> None:
        """As PostgreSQL does by itself once a minute: a table that was just made has no statistics.

        Until then it walks through whole tables that were small when a statement was planned.
        """
        if self.server is not None:
            with psycopg.connect(self.database, autocommit=True) as db:
                db.execute("ANALYZE")

    def stored_mib(self) -> float:
        """How large its database is now."""
        if self.server is None:
            path = Path(self.database)
            parts = [path, path.with_name(path.name + "-wal")]
            return sum(part.stat().st_size for part in parts if part.exists()) / MIB
        with psycopg.connect(self.database) as db:
            row = db.execute("SELECT pg_database_size(current_database())").fetchone()
        return float(row[0]) / MIB if row else 0.0

    def pids(self) -> dict[str, list[int]]:
        """By role; broker and database, too."""
        found: dict[str, list[int]] = {}
        for role in self.roles:
            found.setdefault(role.role, []).append(role.pid)
        found["broker"] = [self.broker.pid or 0]
        if self.server is not None:
            found["database"] = [self.server.pid or 0]
        return found


@lru_cache(maxsize=1)
def bundle() -> Path:
    """The published fleet's, trained once a run."""
    folder = Path(tempfile.mkdtemp(prefix="twin-bench-bundle-"))
    train(training_settings(THRESHOLD_V), folder, SEED, TRAINING_VEHICLES)
    return folder / "bundle"


@contextmanager
def installation(backend: Backend, **processes: int) -> Iterator[Installation]:
    """Everything new, on free ports, gone afterwards.

    On SQLite `twin-cloud serve`; on PostgreSQL one of each role, or as many as are named.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twin-bench-")))
        private, public = folder / "keys" / "private.pem", folder / "keys" / "public.pem"
        create_key_pair(private, public)
        broker = stack.enter_context(PrivateBroker(folder=folder / "broker"))
        server = stack.enter_context(PrivatePostgres()) if backend == "postgresql" else None
        where = server.create("twin") if server else str(folder / "twin.db")
        config = write_config(
            folder,
            broker_port=broker.port,
            store=where,
            bundle=bundle(),
            key=private,
            more=_READS_FREELY,
        )
        roles = _roles(backend, config, processes)
        stack.enter_context(running(*roles))
        yield Installation(backend, broker, server, roles, public, where, api_key(where))


def _roles(backend: Backend, config: Path, processes: Mapping[str, int]) -> list[RoleProcess]:
    if backend == "sqlite":
        return [RoleProcess("serve", config)]
    wanted: dict[Role, int] = {"ingest": 1, "worker": 1, "api": 1}
    return [
        RoleProcess(role, config, f"{role}-{number}")
        for role, count in wanted.items()
        for number in range(processes.get(role, count))
    ]


def api_key(database: str) -> str:
    """A viewer's, made as an administrator makes the first one."""
    command = ["api-keys", "create", "--name", "bench", "--database", database]
    made = subprocess.run(
        [sys.executable, "-m", "cloud", *command], check=True, capture_output=True, text=True
    )
    return made.stdout.strip().splitlines()[-1]
