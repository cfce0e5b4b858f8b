"""A real `edge-agent run` process that is fed with driving, beside a real broker and cloud.

Must never reach into the agent: lines on its standard input go in, the kernel's numbers come out.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.edge.installed import Installed, unit_environment
from common.bundle import Bundle
from common.model import VoltageModel
from demo.loop import Stage, stage
from demo.simulated import TRAINING_VEHICLES, train, training_settings

SEED = 41
HZ = 10
TRIP_SAMPLES = 12_000  # 20 minutes
START = 1_750_000_000.0
TRIP_KM = 250.0
WORN = 1.12  # gain on the distance of a worn battery: without a revision its trips are breaches


@dataclass(frozen=True)
class Car:
    """Where one agent's files are, and what it drives with."""

    stage: Stage
    bundle: Bundle
    folder: Path


@contextmanager
def car() -> Iterator[Car]:
    """A broker, a cloud service, and the files of one vehicle."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as name:
        folder = Path(name)
        bundle = train(training_settings(0.05), folder, SEED, TRAINING_VEHICLES).bundle
        with stage(folder / "bundle", folder / "loop") as running:
            yield Car(running, bundle, folder)


@contextmanager
def agent(
    car: Car, installed: Installed, code: str = "", limits: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """`edge-agent run`, as the unit starts it; `code` runs in place of the program."""
    config = car.folder / "agent.toml"
    config.write_text(_config(car, limits), encoding="utf-8")
    program = ["-c", code] if code else ["-m", "edge_agent"]
    command = [*installed.command, *program, "run", "--config", str(config)]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with (car.folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**inherited, **unit_environment()},
            cwd=car.folder,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def lines(bundle: Bundle, count: int, name: str = "trip") -> list[bytes]:
    """Driving at `HZ` in trips of `TRIP_SAMPLES`; the battery is worn from the second on.

    A trip empties the battery, whatever its time: so its trace has the shape of a real breach.
    """
    model = VoltageModel(bundle)
    names = bundle.manifest.feature_names
    found: list[bytes] = []
    for number, first in enumerate(range(0, count, TRIP_SAMPLES)):
        size = min(TRIP_SAMPLES, count - first)
        km = np.linspace(0.0, TRIP_KM, TRIP_SAMPLES)[:size]
        features = np.column_stack([km, np.full(size, 25.0), np.full(size, 900.0)])
        voltage = model.predict(features, [WORN if number else 1.0, 1.0])
        for i in range(size):
            sample: dict[str, float | str] = dict(
                zip(names, features[i].round(4).tolist(), strict=True)
            )
            sample["time_s"] = START + number * 7200.0 + i / HZ
            sample["odometer"] = round(1000.0 + number * TRIP_KM + float(km[i]), 4)
            sample["voltage_v"] = round(float(voltage[i]), 4)
            sample["trip_id"] = f"{name}-{number}"
            found.append(json.dumps(sample).encode() + b"\n")
    return found


def _config(car: Car, limits: str) -> str:
    broker = car.stage.broker
    return f"""
vehicle_id = "bench-car"
bundle = "bundle"
state = "state.db"
trusted_keys = ["{car.stage.public_key}"]
[mqtt]
host = "{broker.host}"
port = {broker.port}
[limits]
{limits}
"""
