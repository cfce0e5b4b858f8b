"""A whole installation for a measurement: broker, database, roles, each a process of its own.

Must never tune anything that a user's installation does not have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from demo.broker import PrivateBroker
from demo.loop import stage
from demo.simulated import TRAINING_VEHICLES, train, training_settings

Backend = Literal["sqlite", "postgresql"]
THRESHOLD_V: Final = 0.05
SEED: Final = 900


@dataclass(frozen=True)
class Installation:
    """What runs. `database` is what `--database` takes; `pids` by role."""

    backend: Backend
    broker: PrivateBroker
    api: str
    public_key: Path
    database: str
    pids: Callable[[], Mapping[str, Sequence[int]]]
    metrics: Sequence[str]  # the address of each process's


@lru_cache(maxsize=1)
def bundle() -> Path:
    """The published fleet's, trained once a run."""
    folder = Path(tempfile.mkdtemp(prefix="twin-bench-bundle-"))
    train(training_settings(THRESHOLD_V), folder, SEED, TRAINING_VEHICLES)
    return folder / "bundle"


@contextmanager
def installation(backend: Backend) -> Iterator[Installation]:
    """Everything new, on free ports, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as name:
        folder = Path(name)
        with stage(bundle(), folder) as running:
            yield Installation(
                backend,
                running.broker,
                running.api,
                running.public_key,
                str(running.database),
                lambda: {"serve": [running.service_pid], "broker": [running.broker.pid or 0]},
                [f"{running.api}/metrics"],
            )
