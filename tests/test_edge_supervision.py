"""What systemd hears of the agent: real Unix sockets, and a real agent that is made to hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from demo.loop import free_port
from edge_agent.supervision import Supervisor
from tests.test_edge_cli import AGENT, ENVIRONMENT, Installation, feed_half_a_trip
from tests.waiting import eventually


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.environment = {"NOTIFY_SOCKET": address}

    def heard(self, patience_s: float = 0.0) -> list[str]:
        """Everything that has come, waiting for the first word at most so long."""
        words = []
        self.socket.settimeout(patience_s)
        try:
            while True:
                words.append(self.socket.recv(4096).decode())
                self.socket.settimeout(0.0)
        except (TimeoutError, BlockingIOError):
            return words


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(str(tmp_path / "notify"))
    yield listening
    listening.socket.close()


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def supervisor(systemd: Systemd, clock: Clock, **watchdog: str) -> Supervisor:
    return Supervisor({**systemd.environment, **watchdog}, os.getpid(), clock.monotonic)


def test_every_word_is_one_datagram(systemd: Systemd) -> None:
    agent = supervisor(systemd, Clock())
    agent.ready()
    agent.status("revision 3\nREADY=1")
    agent.stopping()
    assert systemd.heard() == ["READY=1", "STATUS=revision 3 READY=1", "STOPPING=1"]


def test_the_same_status_is_told_once(systemd: Systemd) -> None:
    agent = supervisor(systemd, Clock())
    for text in ("offline", "offline", "connected", "offline"):
        agent.status(text)
    assert systemd.heard() == ["STATUS=offline", "STATUS=connected", "STATUS=offline"]


def test_pings_go_out_three_times_a_deadline_and_only_from_a_loop_that_comes_round(
    systemd: Systemd,
) -> None:
    clock = Clock()
    agent = supervisor(systemd, clock, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    for _ in range(60):  # a minute of turns, two a second too many
        agent.alive()
        agent.alive()
        clock.now_s += 1.0
    assert systemd.heard() == ["WATCHDOG=1"] * 6


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_PID": "1"}],
    ids=["none", "off", "garbage", "another process"],
)
def test_no_pings_for_whom_no_watchdog_waits(systemd: Systemd, watchdog: dict[str, str]) -> None:
    deadline = {} if "WATCHDOG_USEC" in watchdog or not watchdog else {"WATCHDOG_USEC": "1"}
    supervisor(systemd, Clock(), **{**deadline, **watchdog}).alive()
    assert systemd.heard() == []


def test_a_name_in_the_abstract_space_is_found(tmp_path: Path) -> None:
    systemd = Systemd(f"@twin-test-{os.getpid()}-{tmp_path.name}")
    supervisor(systemd, Clock()).ready()
    assert systemd.heard() == ["READY=1"]
    systemd.socket.close()


@pytest.mark.parametrize("address", ["", "/nobody/listens", "vsock:2:1234"])
def test_without_a_listener_the_agent_goes_on(address: str) -> None:
    agent = Supervisor({"NOTIFY_SOCKET": address}, os.getpid(), Clock().monotonic)
    agent.ready()
    agent.alive()
    agent.status("offline")


def test_a_listener_whose_queue_is_full_does_not_hold_the_agent_up(systemd: Systemd) -> None:
    agent = supervisor(systemd, Clock())
    for number in range(5000):  # far beyond what the kernel queues for a socket
        agent.status(str(number))
    assert 0 < len(systemd.heard()) < 5000


@pytest.fixture
def agent(tmp_path: Path, systemd: Systemd) -> Iterator[tuple[subprocess.Popen[str], Installation]]:
    """A real agent under a watchdog of 0.6 s, and its installation."""
    at = Installation(tmp_path, free_port())
    process = subprocess.Popen(
        [*AGENT, "run", "--config", str(at.config)],
        env={**ENVIRONMENT, **systemd.environment, "WATCHDOG_USEC": "600000"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )
    yield process, at
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stderr):
        cast("IO[str]", pipe).close()


Running = tuple[subprocess.Popen[str], Installation]


def test_a_real_agent_says_ready_pings_and_says_goodbye(systemd: Systemd, agent: Running) -> None:
    process, at = agent
    first = systemd.heard(30.0)
    assert first[0] == "READY=1"
    feed_half_a_trip(process, at)
    words = list(first)

    def pinged_three_times() -> bool:
        words.extend(systemd.heard())
        return words.count("WATCHDOG=1") >= 3

    eventually(pinged_three_times)
    assert any(w.startswith("STATUS=offline, keeping") and "revision 0" in w for w in words)
    process.terminate()
    assert process.wait(30) == 0
    assert systemd.heard()[-1] == "STOPPING=1"


def test_a_real_agent_that_hangs_goes_silent(systemd: Systemd, agent: Running) -> None:
    process, _ = agent
    assert systemd.heard(30.0)
    os.kill(process.pid, signal.SIGSTOP)
    stopped = Path(f"/proc/{process.pid}/stat")
    eventually(lambda: stopped.read_text().rpartition(")")[2].split()[0] == "T")
    systemd.heard()
    assert systemd.heard(1.2) == []  # twice the deadline: systemd would have killed it
    os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: "WATCHDOG=1" in systemd.heard())  # another word may come before it


def test_pings_come_from_the_main_loop_not_from_a_thread_that_outlives_it(
    tmp_path: Path, systemd: Systemd
) -> None:
    """An agent whose loop blocks while its other threads live on: the watchdog must not be fed."""
    at = Installation(tmp_path, free_port())
    hang = (
        "import sys, time, edge_agent.agent, edge_agent.cli\n"
        "def poll(*_):\n    print('hangs', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "edge_agent.agent.Agent.poll = poll\n"
        "edge_agent.cli.main(sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hang, "run", "--config", str(at.config)],
        env={**ENVIRONMENT, **systemd.environment, "WATCHDOG_USEC": "600000"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "hangs\n"
        assert systemd.heard(30.0)[0] == "READY=1"
        assert systemd.heard(1.2) == []
    finally:
        process.kill()
        process.communicate()
