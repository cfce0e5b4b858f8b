"""A simulated car on a real bus between real processes: until a breach lies in the outbox."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import can
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from common.messages import TripSummary, decode
from demo.loop import free_port
from tests.support_edge import KEY, manifest_of, write_bundle
from tests.test_edge_cli import ENVIRONMENT
from tests.waiting import eventually

GROUP = "239.74.163.77"
AGENT = [sys.executable, "-m", "edge_agent"]
CAR = [sys.executable, "-m", "firmware_sim"]
SETTINGS = """
vehicle_id = "V001"
bundle = "bundle"
state = "state.db"
trusted_keys = ["trusted.pem"]
[mqtt]
port = {broker}
[limits]
checkpoint_s = 0.05
[source]
kind = "can"
[source.derived]
distance_km = {{ how = "odometer" }}
[source.can]
dbc = "bms.dbc"
interface = "{interface}"
channel = "{channel}"
options = {options}
interval_s = 0.1
stale_s = 3.0
[source.can.signals]
time_s = {{ signal = "UnixTime" }}
voltage_v = {{ signal = "PackVoltage", scale = 0.010416666666666666 }}
odometer = {{ signal = "Odometer" }}
load_kg = {{ signal = "Load" }}
ignition = {{ signal = "Ignition" }}
[source.can.checks]
BMS_Pack = {{ counter = "PackCounter", crc = "PackCrc" }}
Vehicle_Motion = {{ counter = "MotionCounter", crc = "MotionCrc" }}
"""


class Rig:
    """A folder with an agent that listens, and a car that plays onto the same bus."""

    def __init__(self, folder: Path, interface: str, channel: str, port: int | None) -> None:
        self.folder = folder
        self.bus = ["--interface", interface, "--channel", channel]
        self.bus += [] if port is None else ["--port", str(port)]
        manifest = manifest_of(b"")
        load = manifest.features[1]
        # The tiny bundle knows another battery: whatever the car does is a breach.
        write_bundle(
            folder / "bundle",
            features=[manifest.features[0], _wide(load)],
            target=_wide(manifest.target),
        )
        (folder / "trusted.pem").write_bytes(
            KEY.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        done = subprocess.run([*CAR, "dbc"], capture_output=True, check=True, env=ENVIRONMENT)
        (folder / "bms.dbc").write_bytes(done.stdout)
        options = "{}" if port is None else f"{{ port = {port} }}"
        text = SETTINGS.format(
            broker=free_port(), interface=interface, channel=channel, options=options
        )
        (folder / "agent.toml").write_text(text)
        self.log = folder / "agent.log"

    def agent(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*AGENT, "run", "-v", "--config", str(self.folder / "agent.toml")],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def car(self, *options: str) -> subprocess.Popen[bytes]:
        command = [*CAR, "can", *self.bus, *options]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)

    def status(self) -> dict[str, Any]:
        command = [*AGENT, "status", "--json", "--config", str(self.folder / "agent.toml")]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
        facts: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return facts

    def query(self, sql: str) -> list[Any]:
        """Nothing as long as the agent has not made its tables."""
        try:
            with closing(sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)) as db:
                return list(db.execute(sql))
        except sqlite3.OperationalError:
            return []

    def outbox(self) -> list[tuple[str, bytes]]:
        return self.query("SELECT kind, payload FROM outbox ORDER BY seq")

    def is_running(self) -> bool:
        return bool(self.query("SELECT 1 FROM running_trip"))

    def summaries(self) -> list[TripSummary]:
        return [decode(raw, TripSummary) for kind, raw in self.outbox() if kind == "trip"]


def _wide(signal_: Any) -> Any:
    return msgspec.structs.replace(signal_, minimum=-1e5, maximum=1e5)


def multicast_problem() -> str | None:
    """Why this machine has no UDP multicast."""
    port = free_port()
    try:
        with (
            can.Bus(interface="udp_multicast", channel=GROUP, port=port) as one,
            can.Bus(interface="udp_multicast", channel=GROUP, port=port) as other,
        ):
            one.send(can.Message(arbitration_id=1, data=b"x", is_extended_id=False))
            return None if other.recv(5.0) else "no frame came back"
    except (can.CanError, OSError) as error:
        return str(error)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    problem = multicast_problem()
    if problem is not None:
        pytest.skip(f"this machine has no UDP multicast: {problem}")
    return Rig(tmp_path, "udp_multicast", GROUP, free_port())


def ended(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(20)


@pytest.mark.timeout(180)
def test_a_played_car_breaches_and_the_breach_lies_in_the_outbox(rig: Rig) -> None:
    agent = rig.agent()
    car = rig.car("--vehicle", "V001", "--trips", "9", "--speed-up", "3600", "--pause-s", "1")
    try:
        eventually(
            lambda: "breach" in [kind for kind, _ in rig.outbox()], 120.0, "a breach in the outbox"
        )
    finally:
        ended(car, agent)
    summary = rig.summaries()[0]
    assert summary.breach
    assert summary.samples >= 10
    assert 100 < summary.odometer_end - summary.odometer_start < 600
    assert "Traceback" not in rig.log.read_text()


@pytest.mark.timeout(180)
def test_an_agent_that_is_killed_in_mid_trip_goes_on_with_the_trip(rig: Rig) -> None:
    agent = rig.agent()
    car = rig.car("--vehicle", "V001", "--trips", "3", "--speed-up", "10", "--pause-s", "1")
    try:
        eventually(rig.is_running, 90.0, "a trip on disk")
        agent.send_signal(signal.SIGKILL)
        agent.wait(20)
        agent = rig.agent()
        eventually(lambda: "trip_continued" in rig.log.read_text(), 60.0, "the trip going on")
        assert rig.summaries() == []
    finally:
        ended(car, agent)
    assert rig.status()["counters"]["trips_continued"] == 1


@pytest.mark.timeout(180)
def test_faults_on_the_bus_are_named_in_the_status_and_the_agent_drives_on(rig: Rig) -> None:
    agent = rig.agent()
    faults = ["drop:BMS_Pack@0..9999", "flip:Vehicle_Motion@0..9999", "babble@0..9999"]
    car = rig.car("--speed-up", "10", *[part for fault in faults for part in ("--fault", fault)])
    try:
        eventually(
            lambda: (
                {"can_stale:voltage_v", "can_bad_crc:Vehicle_Motion", "can_unknown_id"}
                <= set(rig.status().get("counters", {}))
            ),
            120.0,
            "the faults by name",
        )
        assert agent.poll() is None
    finally:
        ended(car, agent)
    assert rig.outbox() == []
    assert "Traceback" not in rig.log.read_text()


def test_a_trip_is_read_from_a_vcan_of_the_kernel(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as raw:
            raw.bind(("vcan0",))
    except OSError as error:
        pytest.skip(f"the kernel has no vcan0: {error}")
    rig = Rig(tmp_path, "socketcan", "vcan0", None)
    agent = rig.agent()
    car = rig.car("--trips", "9", "--speed-up", "3600", "--pause-s", "1")
    try:
        eventually(lambda: bool(rig.summaries()), 100.0, "a trip in the outbox")
    finally:
        ended(car, agent)
