"""A private MQTT broker on loopback for demonstration and tests: start, stop, kill, restart.

Must never serve beyond loopback and never touch a broker it did not start.
`python -m demo.broker` finds (or unpacks) one beforehand and says which; with a port, it runs it.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from common.errors import TransientError, TwinError
from demo.broker_backends import (
    LOOPBACK,
    PORT_TAKEN,
    Backend,
    BrokerTls,
    BrokerUnavailable,
    Kind,
    MqttVersion,
    Source,
    choose_backend,
)

__all__ = ["BrokerTls", "BrokerUnavailable", "PortInUse", "PrivateBroker", "Source"]

# Below the range from which systems take the source ports of outgoing connections: while the
# broker is down, a reconnecting client could otherwise connect to itself and hold the port.
_PORTS: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 20
_START_DEADLINE_S: Final = 30.0
_STOP_DEADLINE_S: Final = 15.0
_POLL_S: Final = 0.01


class PortInUse(TransientError):  # noqa: N818 - reads as the state it is
    """Another program listens on the port that the broker was told to use."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"Port {port} on {host} is taken by another program: stop that program "
            "or let the broker choose a port."
        )


class PrivateBroker:
    """A broker process with its own port, configuration and state; a context manager.

    `source` narrows the choice ("any": an installed Mosquitto, one unpacked from its Debian
    package, the embedded amqtt). `folder` keeps the state and is left alone at the end; without
    it a temporary one is used and removed. `config_lines` are Mosquitto's own, and override
    what stands here. Raises BrokerUnavailable; `start` raises PortInUse for a given `port`.
    """

    host: Final = LOOPBACK

    def __init__(
        self,
        *,
        source: Source = "any",
        port: int | None = None,
        folder: Path | None = None,
        config_lines: Sequence[str] = (),
        tls: BrokerTls | None = None,
    ) -> None:
        secured = tls.lines() if tls else []
        self._backend: Backend = choose_backend(source, [*secured, *config_lines])
        self._port = port
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="twin-broker-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def kind(self) -> Kind:
        """Which program it is."""
        return self._backend.kind

    @property
    def mqtt_version(self) -> MqttVersion:
        """The newest protocol it speaks."""
        return self._backend.mqtt_version

    @property
    def port(self) -> int:
        """The port; the same for the whole life of this object, restarts included."""
        if self._port is None:
            raise BrokerNotStartedError
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far, over all its starts."""
        path = self._log_path()
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and return when it accepts connections. Raises PortInUse, BrokerFailedError."""
        if self.running:
            return self
        if self._port is None:
            self._port = self._start_anywhere()
        else:
            self._launch(self._port)
        return self

    def stop(self) -> None:
        """Ask it to end; Mosquitto writes its state first. Harmless when it does not run."""
        if self._process is not None and self.running:
            self._process.terminate()
            self._wait(self._process)
        self._reap()

    def kill(self) -> None:
        """End it as a power cut would: what it took since its last autosave is lost."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def restart(self) -> Self:
        """Stop and start on the same port with the same state. Raises PortInUse."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop it and remove its temporary folder."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_anywhere(self) -> int:
        """Try free ports until one is still free when the broker binds it."""
        for port in random.SystemRandom().sample(_PORTS, _ATTEMPTS):
            try:
                self._launch(port)
            except PortInUse:
                continue
            return port
        raise BrokerUnavailable(self.kind, [f"{_ATTEMPTS} ports in a row were taken"])

    def _launch(self, port: int) -> None:
        seen = len(self.log)
        with self._log_path().open("ab") as log:
            self._process = subprocess.Popen(
                self._backend.command(self.folder, port),
                env=self._backend.environment(),
                stdin=subprocess.PIPE,  # closes with this process: the embedded broker then ends
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the caller, who ends things in order
            )
        try:
            self._await_ready(self._process, port, seen)
        except BaseException:
            self.kill()
            raise

    def _await_ready(self, process: subprocess.Popen[bytes], port: int, seen: int) -> None:
        """Wait for its own word, then for its port: the port alone may be somebody else's."""
        deadline_s = time.monotonic() + _START_DEADLINE_S
        while True:
            ended = process.poll() is not None
            told = self.log[seen:]
            if ended and PORT_TAKEN in told:
                raise PortInUse(self.host, port)
            if ended or time.monotonic() > deadline_s:
                raise BrokerFailedError(self.kind, told)
            if self._backend.ready_mark in told and _accepts(self.host, port):
                return
            time.sleep(_POLL_S)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    def _log_path(self) -> Path:
        return self.folder / "broker.log"


class BrokerNotStartedError(TwinError):
    """The port is asked for before there is one."""

    def __init__(self) -> None:
        super().__init__("The broker has no port yet: start it, or give it one.")


class BrokerFailedError(TwinError):
    """The broker program ended, or did not come up in time."""

    def __init__(self, kind: str, log: str) -> None:
        self.kind, self.log = kind, log
        last = log.strip().splitlines()[-1:] or ["it wrote nothing"]
        super().__init__(
            f"The broker {kind} did not start: {last[0]}. Correct its configuration or its folder."
        )


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """Find or unpack a broker and say which; with a port as argument, run it until Ctrl-C."""
    port = int(arguments[0]) if arguments else None
    try:
        with PrivateBroker(port=port) as broker:
            print(f"Broker: {broker.kind}, MQTT {broker.mqtt_version}")
            if port is not None:
                told = f"on {broker.host}:{port}, nobody is asked who they are; Ctrl-C ends it"
                print(told, flush=True)
                _wait_for_interrupt()
    except TwinError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _wait_for_interrupt() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
