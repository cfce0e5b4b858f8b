"""A fleet of made-up cars, a real broker, a cloud that keeps the contract; agents are killed.

Must never kill anything but agents that it started.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.edge.kill_check import Ending, read_ending
from bench.edge.kill_lives import Lives, TableLives
from bench.edge.made_up_car import Car, car, write_bundle
from bench.edge.power_record import ENVIRONMENT
from bench.edge.spawner import Spawner, spawner
from common.bundle import Bundle
from demo.broker import PrivateBroker

SETTLE_S = 60.0
AT_LAST = 6  # trips that nobody disturbs: some of them breach


@dataclass(frozen=True)
class Stage:
    """What runs while agents come and go."""

    folder: Path
    bundle: Bundle
    port: int
    public_key: Path
    database: Path
    read: Callable[[Path, str, Mapping[str, Any]], Ending] = read_ending


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Broker and cloud; both end with the block."""
    folder.mkdir(parents=True)
    bundle = write_bundle(folder / "bundle")
    with PrivateBroker(folder=folder / "broker") as broker:
        key, database = folder / "bundle.pem", folder / "cloud.db"
        made = Stage(folder, bundle, broker.port, key, database)
        told = [str(broker.port), str(made.database), str(bundle.path)]
        cloud = subprocess.Popen(
            [sys.executable, "-m", "bench.edge.stand_in_cloud", *told],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
        )
        assert cloud.stdout is not None  # noqa: S101 - opened with a pipe
        try:
            cloud.stdout.readline()
            yield made
        finally:
            cloud.kill()
            cloud.wait()
            cloud.stdout.close()


@contextmanager
def lives(kind: Callable[..., Lives], at: Stage, vehicle_id: str, seed: int) -> Iterator[Lives]:
    """One car of the fleet, with a spawner of its own."""
    folder = at.folder / vehicle_id
    folder.mkdir()
    _write_config(folder / "agent.toml", at, vehicle_id)
    starts: Spawner = spawner(ENVIRONMENT)
    can_trace = shutil.which("strace") is not None
    try:
        of: Car = car(vehicle_id, at.bundle)
        yield kind(of, folder, starts, random.Random(seed), can_trace)  # noqa: S311
    finally:
        starts.close()


def _write_config(path: Path, at: Stage, vehicle_id: str) -> None:
    """A lost message is offered again after a second; a checkpoint comes after a few samples."""
    path.write_text(
        f'vehicle_id = "{vehicle_id}"\nbundle = "{at.bundle.path}"\nstate = "state/state.db"\n'
        f'trusted_keys = ["{at.public_key}"]\n[mqtt]\nport = {at.port}\n'
        "[limits]\nreceipt_timeout_s = 1.0\nstatus_interval_s = 1.0\ncheckpoint_s = 0.02\n"
        "trip_gap_s = 3600.0\n"
    )


@dataclass(frozen=True)
class Drive:
    """What became of one car: how many trips it drove, and how it ended."""

    lives: Lives
    trips: int
    ending: Ending


def drive_killed(at: Stage, kind: Callable[..., Lives], name: str, kills: int, seed: int) -> Drive:
    """One car: so many kills, then a life that is let alone, until nothing is left to be sent."""
    with lives(kind, at, name, seed) as one:
        while one.tally.kills < kills and one.tally.lives < 3 * kills + 10:
            one.killed_once()
        return _settled(at, one, one.finish(AT_LAST), name)


def drive_undisturbed(at: Stage, name: str, trips: int) -> Drive:
    """One car that drives so many trips and is never killed."""
    with lives(TableLives, at, name, 0) as one:
        return _settled(at, one, one.finish(trips), name)


def _settled(at: Stage, one: Lives, trips: int, name: str) -> Drive:
    """Lives without anything new, as long as something is to be sent and less each time."""
    deadline_s, least = time.monotonic() + SETTLE_S, math.inf
    ending = at.read(at.database, name, status_of(one))
    while not ending.is_settled and time.monotonic() < deadline_s:
        one.idle()
        ending = at.read(at.database, name, status_of(one))
        if (left := ending.status.get("outbox_messages", math.inf)) < least:
            deadline_s, least = time.monotonic() + SETTLE_S, left
    return Drive(one, trips, ending)


def status_of(one: Lives) -> Mapping[str, Any]:
    """What `edge-agent status --json` says of a car whose agent does not run."""
    command = [sys.executable, "-m", "edge_agent", "status", "--json", "--config"]
    done = subprocess.run(
        [*command, str(one.folder / "agent.toml")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    found: Mapping[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found or {"error": done.stderr}


def at_once(calls: Sequence[Callable[[], Drive]]) -> list[Drive]:
    """Every car on a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
