"""Start `edge-agent` over and over and kill it -9: after a time, or at its n-th call of a kind.

`python -m bench.edge.spawner` answers one JSON request a line. It has the agent's libraries loaded:
a start by `fork` runs the command's own `main` and saves the second that Python takes to import
them; a start by `exec` is the command from nothing. A kill at a call is strace's, which lets the
call never happen. Must never touch a process that it did not start.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from common import model  # noqa: F401 - the runtime of the model is loaded with it
from edge_agent.cli import main as edge_agent

POLL_S = 0.0005
ATTACH_S = 5.0


class Request(msgspec.Struct, frozen=True):
    """One life of the agent. No `after_s` and no `call`: until it ends by itself, or `limit_s`."""

    arguments: list[str]
    log: str
    input: str = os.devnull
    how: Literal["fork", "exec"] = "fork"
    after_s: float | None = None
    call: str = ""
    count: int = 1
    limit_s: float = 60.0


class Reply(msgspec.Struct, frozen=True):
    """How it ended: the signal (9: killed) or the exit code; whether it outlived `limit_s`."""

    signal: int
    code: int
    seconds: float
    is_overdue: bool = False


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin.buffer:
        reply = live(msgspec.json.decode(line, type=Request))
        sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
        sys.stdout.buffer.flush()


def live(request: Request) -> Reply:
    """One life, from its start to its end."""
    begun_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(request)
    tracer = _trace(pid, request) if request.call else None
    limit_s = request.limit_s if request.after_s is None else request.after_s
    status, is_late = _wait(pid, begun_s + limit_s)
    if tracer is not None:
        tracer.wait()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
    is_overdue = is_late and request.after_s is None
    return Reply(number, code, time.monotonic() - begun_s, is_overdue)


def _become(request: Request) -> None:
    """In the child: the agent."""
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    source = os.open(request.input, os.O_RDONLY)
    for fd, target in ((source, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    if request.call:
        os.kill(os.getpid(), signal.SIGSTOP)  # until strace is there
    if request.how == "exec":
        os.execv(sys.executable, [sys.executable, "-m", "edge_agent", *request.arguments])  # noqa: S606
    code = 1
    try:
        code = edge_agent(request.arguments)
    finally:
        os._exit(code)


def _trace(pid: int, request: Request) -> subprocess.Popen[bytes]:
    strace = shutil.which("strace")
    assert strace is not None  # noqa: S101 - who asks for a call has looked
    os.waitpid(pid, os.WUNTRACED)
    inject = f"inject={request.call}:signal=SIGKILL:when={request.count}"
    flags = ["-f", "-qq", "-o", os.devnull, "-e", f"trace={request.call}", "-e", inject]
    tracer = subprocess.Popen(
        [strace, *flags, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + ATTACH_S
    while not _is_traced(pid) and time.monotonic() < deadline_s and tracer.poll() is None:
        time.sleep(POLL_S)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _wait(pid: int, deadline_s: float) -> tuple[int, bool]:
    """Its status, and whether it had to be killed here, at the deadline."""
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, False
        time.sleep(POLL_S)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1], True


@dataclass
class Spawner:
    """The other side: asks a spawner process for one life after another."""

    process: subprocess.Popen[bytes]

    def begin(self, request: Request) -> None:
        """The life begins; `ended` tells of its end."""
        assert self.process.stdin is not None  # noqa: S101 - opened with pipes
        self.process.stdin.write(msgspec.json.encode(request) + b"\n")
        self.process.stdin.flush()

    def has_ended(self) -> bool:
        """Whether `ended` would not wait."""
        assert self.process.stdout is not None  # noqa: S101 - opened with pipes
        return bool(select.select([self.process.stdout], [], [], 0.0)[0])

    def ended(self) -> Reply:
        """Waits for the end."""
        assert self.process.stdout is not None  # noqa: S101 - opened with pipes
        return msgspec.json.decode(self.process.stdout.readline(), type=Reply)

    def close(self) -> None:
        """No more lives."""
        assert self.process.stdin is not None  # noqa: S101 - opened with pipes
        assert self.process.stdout is not None  # noqa: S101 - opened with pipes
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def spawner(env: dict[str, str]) -> Spawner:
    """A spawner process."""
    command = [sys.executable, "-m", "bench.edge.spawner"]
    return Spawner(
        subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )


if __name__ == "__main__":
    main()
