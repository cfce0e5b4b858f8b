"""A key is rotated and revoked, and a vehicle rolled back, through a real broker and service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from common.bundle import load_bundle
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.loop import free_port, wait_ready
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.parameters import revision_records
from edge_agent.service import running_agent
from tests.support_edge import VEHICLE, drive, write_bundle
from tests.waiting import eventually


class Cloud:
    """A service process that can be started with another key."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.api = folder, port, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, private_key: str) -> None:
        (self.folder / "twin-cloud.toml").write_text(
            f'[mqtt]\nport = {self.port}\n[store]\npath = "cloud.db"\n'
            f'[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "{private_key}"\n'
            f'[api]\nauth = "none"\nport = {self.api}\n'
        )
        log = self.folder / "cloud.log"
        with log.open("ab") as file:
            seen = file.tell()
            command = [sys.executable, "-m", "cloud", "serve", "--config", "twin-cloud.toml"]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=file, stderr=file)
        wait_ready(self._process, log, seen)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def order(self, *words: str) -> None:
        command = [sys.executable, "-m", "cloud", *words, "--database", "cloud.db"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "first.pem", tmp_path / "first.pub.pem")
    broker = PrivateBroker(source="any").start()
    cloud = Cloud(tmp_path, broker.port)
    (tmp_path / "agent.toml").write_text(
        f'vehicle_id = "{VEHICLE}"\nbundle = "bundle"\nstate = "state.db"\n'
        f'trusted_keys = ["first.pub.pem"]\n[mqtt]\nport = {broker.port}\n'
    )
    cloud.start("first.pem")
    yield cloud
    cloud.stop()
    broker.close()


def wait(agent: Agent, reached: Callable[[], bool], what: str) -> None:
    def is_reached() -> bool:
        agent.poll(0.05)
        return reached()

    eventually(is_reached, 30.0, what)


def trip(agent: Agent, folder: Path, number: int, gain: float) -> None:
    """A whole trip of a battery with this gain, and every outcome of it."""

    bundle = load_bundle(folder / "bundle")
    for sample in drive(bundle, f"trip-{number}", gain=gain, odometer=1000.0 * number):
        agent.take(sample)
    agent.driving.end_trip()
    wait(agent, agent.is_drained, f"the outcome of trip {number}")


def test_keys_change_and_a_vehicle_goes_back_without_anybody_touching_it(
    cloud: Cloud, tmp_path: Path
) -> None:
    second = create_key_pair(tmp_path / "second.pem", tmp_path / "second.pub.pem")
    with running_agent(load_config(tmp_path / "agent.toml")) as agent:
        trip(agent, tmp_path, 1, 1.1)
        trip(agent, tmp_path, 2, 1.1)
        wanted = agent.twin.estimate.theta.tolist()
        assert (agent.twin.revision, agent.status().on_trial) == (1, False)
        trip(agent, tmp_path, 3, 1.3)
        trip(agent, tmp_path, 4, 1.3)
        before = agent.twin.revision
        assert before > 1
        # The new key is made known by the old one, and signs from the next start on.
        cloud.stop()
        cloud.order("keys", "rotate", "--new", "second.pub.pem", "--signed-by", "first.pem")
        first = next(iter(agent.identity.trusted.keys))
        cloud.start("second.pem")
        wait(agent, lambda: agent.status().key_statement == 1, "the first statement")
        url = f"http://127.0.0.1:{cloud.api}/api/v1/vehicles/{VEHICLE}/roll-back"
        answer = httpx.post(url, json={"by": "desk", "to": 1, "why": "test"}, trust_env=False)
        assert answer.status_code == 202
        wait(agent, lambda: agent.twin.revision == before + 1, "the roll-back")
        assert agent.twin.estimate.theta.tolist() == wanted
        [(_, newest), *_] = revision_records.confirmed(agent._state.connection)
        assert newest.key_id == second
        # The old one is revoked by the new one.
        cloud.order("keys", "revoke", first, "--signed-by", "second.pem")
        trip(agent, tmp_path, 5, 1.3)
        assert agent.twin.revision == before + 2
        wait(agent, lambda: agent.status().key_statement == 2, "the second statement")
        assert set(agent.identity.trusted.revoked) == {first}
