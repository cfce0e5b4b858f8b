"""Run the loop: private broker, the real cloud service in its own process, real agents in this one.

Must never shortcut the wire: vehicles and cloud speak MQTT through the broker and nothing else.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import TwinError
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.vehicles import VehicleData, samples_of
from edge_agent.config import Config, Limits, Mqtt
from firmware_sim.fleet_runner import Job, Outcome, run_fleet

READY_DEADLINE_S = 60.0
ANSWER_S = 60.0
READY = re.compile(r"ready api=(http://\S+)")


class ServiceFailedError(TwinError):
    """The cloud service ended, or did not become ready."""

    def __init__(self, log: Path, tail: str) -> None:
        self.log = log
        super().__init__(f"`twin-cloud serve` did not become ready; its log {log} ends: {tail}")


@dataclass(frozen=True)
class LoopRun:
    """What a run left behind: the database, the outcomes, and how long and how big it was.

    `agents_peak_mb` is this process (training and all agents), `cloud_peak_mb` the cloud service;
    not a number where the system does not tell.
    """

    database: Path
    outcomes: list[Outcome]
    seconds: float
    broker: str
    agents_peak_mb: float
    cloud_peak_mb: float


@dataclass(frozen=True)
class Stage:
    """A running broker and cloud service."""

    broker: PrivateBroker
    api: str
    service_pid: int
    public_key: Path
    database: Path


@contextmanager
def stage(bundle: Path, folder: Path) -> Iterator[Stage]:
    """Broker and service on free ports, with everything they keep in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / "keys" / "cloud.key.pem", folder / "keys" / "cloud.pub.pem"
    create_key_pair(private, public)
    with ExitStack() as stack:
        broker = stack.enter_context(PrivateBroker(folder=folder / "broker"))
        config = folder / "twin-cloud.toml"
        config.write_text(_cloud_config(bundle, private, broker, free_port()))
        api, pid = stack.enter_context(cloud_service(config, folder / "cloud.log"))
        yield Stage(broker, api, pid, public, folder / "cloud.db")


@contextmanager
def cloud_service(config: Path, log: Path) -> Iterator[tuple[str, int]]:
    """`twin-cloud serve` as a process of its own; the API's address, once ready, and its pid."""
    with log.open("ab") as file:
        start = file.tell()
        command = [sys.executable, "-m", "cloud", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield wait_ready(process, log, start), process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(process: subprocess.Popen[bytes], log: Path, start: int = 0) -> str:
    """The API's address from the service's log. Raises ServiceFailedError."""
    deadline = time.monotonic() + READY_DEADLINE_S
    while True:
        text = log.read_bytes()[start:].decode(errors="replace")
        if found := READY.search(text):
            return found[1]
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceFailedError(log, text[-500:])
        time.sleep(0.02)


@contextmanager
def agents_log(path: Path) -> Iterator[None]:
    """What the agents of this process log goes to a file: a progress bar is no place for it."""
    logger = logging.getLogger("edge_agent")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


def run_loop(
    vehicles: Sequence[VehicleData],
    bundle: Path,
    on_stage: Stage,
    folder: Path,
    on_trip: Callable[[], None],
) -> LoopRun:
    """Drive all vehicles through their trips against a running stage."""
    jobs = [
        Job(
            agent_config(vehicle.vehicle_id, bundle, on_stage, folder),
            (samples_of(trip) for trip in vehicle.trips),
        )
        for vehicle in vehicles
    ]
    started = time.monotonic()
    outcomes = run_fleet(jobs, ANSWER_S, on_trip)
    return LoopRun(
        database=on_stage.database,
        outcomes=outcomes,
        seconds=time.monotonic() - started,
        broker=on_stage.broker.kind,
        agents_peak_mb=_peak_mb("self"),
        cloud_peak_mb=_peak_mb(on_stage.service_pid),
    )


def agent_config(vehicle_id: str, bundle: Path, on_stage: Stage, folder: Path) -> Config:
    """The configuration of one agent of the fleet; a lost message is offered again after 2 s."""
    return Config(
        vehicle_id=vehicle_id,
        bundle=str(bundle.resolve()),
        state=str((folder / "vehicles" / vehicle_id / "state.db").resolve()),
        trusted_keys=[str(on_stage.public_key.resolve())],
        mqtt=Mqtt(
            host=on_stage.broker.host,
            port=on_stage.broker.port,
            protocol=on_stage.broker.mqtt_version,
        ),
        limits=Limits(receipt_timeout_s=2.0),
    )


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _peak_mb(process: int | str) -> float:
    """Peak resident memory; `getrusage` would count what a child had before its exec."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return math.nan
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else math.nan


def _cloud_config(bundle: Path, private: Path, broker: PrivateBroker, port: int) -> str:
    return (
        f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n'
        f'protocol = "{broker.mqtt_version}"\n'
        f'[store]\npath = "cloud.db"\n'
        f'[bundles]\npaths = ["{bundle.resolve().as_posix()}"]\n'
        f'[keys]\nprivate = "{private.resolve().as_posix()}"\n'
        f"[api]\nport = {port}\n"
    )
