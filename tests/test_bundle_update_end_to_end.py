"""A new model reaches a car that drives: real Mosquitto, real service, real `edge-agent run`.

INVARIANTS 1 and 5: announced, fetched, tested in its own process, swapped between two trips by a
restart of the agent, calibrated; and with a kill -9 while it waits.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest

from common.bundle import load_bundle
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.loop import wait_ready
from edge_agent.bundle_update.restart import RESTART_CODE
from edge_agent.bundle_update.start import installed_bundle
from edge_agent.config import load_config
from tests.support_edge import VEHICLE, drive, write_bundle
from tests.test_edge_cli import ENVIRONMENT, cells
from tests.waiting import eventually

DEADLINE_S = 60.0


class Loop:
    """Broker, service, and one car's agent that reads samples from a pipe."""

    def __init__(self, folder: Path, broker: PrivateBroker) -> None:
        self.folder = folder
        self.old = load_bundle(write_bundle(folder / "bundle"))
        self.new = load_bundle(write_bundle(folder / "new", name="next", error_threshold_v=0.02))
        create_key_pair(folder / "keys/private.pem", folder / "keys/public.pem")
        (folder / "twin-cloud.toml").write_text(
            f'[mqtt]\nport = {broker.port}\n[store]\npath = "twin.db"\n'
            '[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "keys/private.pem"\n'
            "[api]\nport = 0\n"
        )
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'vehicle_id = "{VEHICLE}"\nbundle = "bundle"\nstate = "state.db"\n'
            f'trusted_keys = ["keys/public.pem"]\n[mqtt]\nport = {broker.port}\n'
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        log = folder / "cloud.log"
        with log.open("wb") as file:
            self.service = self._spawn(["cloud", "serve", "--config", "twin-cloud.toml"], file)
        wait_ready(self.service, log)
        self.agent = self.start_agent()
        self._next_trip = 0

    def _spawn(
        self, arguments: list[str], log: IO[bytes], **options: Any
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            **options,
        )
        self.processes.append(process)
        return process

    def start_agent(self) -> subprocess.Popen[bytes]:
        with (self.folder / "agent.log").open("ab") as log:
            arguments = ["edge_agent", "run", "--config", "agent.toml", "--source", "-"]
            return self._spawn(arguments, log, stdin=subprocess.PIPE)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
            if process.stdin:
                process.stdin.close()

    def begin_trip(self, gain: float = 1.1) -> None:
        """A trip as far as its last sample, with the ignition still on."""
        self._next_trip += 1
        start = 1_700_000_000.0 + 10_000.0 * self._next_trip
        odometer = 1000.0 * self._next_trip
        for sample in drive(self.old, None, gain=gain, count=20, odometer=odometer, start=start):
            self._say({**cells(sample), "trip_id": None, "ignition": 1})
            self._last = sample

    def end_trip(self) -> None:
        self._say({**cells(self._last), "trip_id": None, "ignition": 0})

    def trip(self, gain: float = 1.1) -> None:
        self.begin_trip(gain)
        self.end_trip()

    def _say(self, row: dict[str, Any]) -> None:
        assert self.agent.stdin is not None
        said = {name: value for name, value in row.items() if value is not None}
        self.agent.stdin.write(json.dumps(said).encode() + b"\n")
        self.agent.stdin.flush()

    def announce(self) -> None:
        self._twin_cloud("announce", VEHICLE, "--bundle", "new", "--reason", "a better winter")

    def status(self) -> dict[str, Any]:
        [row] = json.loads(self._twin_cloud("status", "--json"))
        found: dict[str, Any] = row
        return found

    def _twin_cloud(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "cloud", "bundle", *arguments, "--database", "twin.db"]
        done = subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        return done.stdout

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "twin.db", timeout=10)) as db:
            return db.execute(query).fetchall()

    def state(self) -> str | None:
        found: list[tuple[str | None]] = self.rows("SELECT state FROM release") or [(None,)]
        return found[0][0]

    def revisions_of(self, bundle: str) -> int:
        query = "SELECT count(*) FROM revision WHERE verdict = 'applied' AND bundle = "
        return int(self.rows(f"{query}'{bundle}'")[0][0])

    @property
    def installed(self) -> str:
        return installed_bundle(load_config(self.config)).sha256


@pytest.fixture
def loop(tmp_path: Path, mosquitto: PrivateBroker) -> Iterator[Loop]:
    made = Loop(tmp_path, mosquitto)
    yield made
    made.stop()


def test_a_new_model_reaches_a_car_and_is_calibrated_there(loop: Loop) -> None:
    loop.trip()
    eventually(lambda: loop.revisions_of(loop.old.sha256) == 1, DEADLINE_S, "the first revision")
    loop.begin_trip()
    loop.announce()
    eventually(lambda: loop.state() == "staged", DEADLINE_S, "the self-test")
    assert loop.installed == loop.old.sha256, "a swap waits for the end of the trip"
    loop.end_trip()
    eventually(lambda: loop.installed == loop.new.sha256, DEADLINE_S, "the swap")
    eventually(lambda: loop.state() == "trial", DEADLINE_S, "the restart")
    assert loop.agent.poll() is None, "it began anew as the same process"
    loop.trip(gain=1.2)
    eventually(lambda: loop.state() == "installed", DEADLINE_S, "the end of the trial")
    eventually(lambda: loop.revisions_of(loop.new.sha256) == 1, DEADLINE_S, "its first revision")
    found = loop.status()
    assert (found["runs"], found["state"], found["missing"]) == (loop.new.sha256, "installed", 0)
    assert not loop.rows("SELECT * FROM quarantine")


def test_a_kill_while_the_new_model_waits_loses_nothing(loop: Loop) -> None:
    loop.trip()
    eventually(lambda: loop.rows("SELECT * FROM trip"), DEADLINE_S, "the first trip")
    loop.begin_trip()
    loop.announce()
    eventually(lambda: loop.state() == "staged", DEADLINE_S, "the self-test")
    loop.agent.send_signal(signal.SIGKILL)
    loop.agent.wait(20)
    loop.agent = loop.start_agent()
    loop.end_trip()
    eventually(lambda: loop.state() == "trial", DEADLINE_S, "the swap")
    loop.trip(gain=1.2)
    eventually(lambda: loop.state() == "installed", DEADLINE_S, "the end of the trial")
    assert len(loop.rows("SELECT * FROM trip")) >= 2


def test_without_its_program_the_agent_asks_to_be_started_again(loop: Loop, tmp_path: Path) -> None:
    """As after an upgrade that removed the version which runs: systemd starts the other one."""
    loop.agent.terminate()
    loop.agent.wait(20)
    gone = tmp_path / "gone.py"
    gone.write_text(
        "import sys, runpy\n"
        "sys.executable_of_tests, sys.executable = sys.executable, '/nowhere/python'\n"
        "import edge_agent.bundle_update.self_test_process as process\n"
        "process.COMMAND = (sys.executable_of_tests, *process.COMMAND[1:])\n"
        "process.SelfTest.__init__.__defaults__ = (process.COMMAND,)\n"
        "sys.argv = ['edge-agent', 'run', '--config', 'agent.toml', '--source', '-']\n"
        "runpy.run_module('edge_agent', run_name='__main__')\n"
    )
    with (loop.folder / "agent.log").open("ab") as log:
        loop.agent = subprocess.Popen(
            [sys.executable, str(gone)], cwd=loop.folder, env=ENVIRONMENT, stdin=subprocess.PIPE,
            stdout=log, stderr=log,
        )  # fmt: skip
    loop.processes.append(loop.agent)
    loop.trip()
    eventually(lambda: loop.rows("SELECT * FROM trip"), DEADLINE_S, "the first trip")
    loop.announce()
    loop.trip(gain=1.3)  # a breach: the service wakes, and sees the order at once
    assert loop.agent.wait(DEADLINE_S) == RESTART_CODE
    loop.agent = loop.start_agent()
    loop.trip(gain=1.2)
    eventually(lambda: loop.state() == "installed", DEADLINE_S, "the end of the trial")
