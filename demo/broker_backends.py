"""Which broker program to run, with what configuration: Mosquitto if at all possible, else amqtt.

Must never start a process; `demo.broker` does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol

from common.errors import TwinError
from demo.debian_packages import PackageUnavailableError
from demo.mosquitto_binary import (
    MosquittoBinary,
    broker_home,
    installed_mosquitto,
    unpacked_mosquitto,
)

Kind = Literal["mosquitto", "amqtt"]
Source = Literal["any", "mosquitto", "installed", "unpacked", "amqtt"]
MqttVersion = Literal["5", "3.1.1"]

LOOPBACK: Final = "127.0.0.1"
PORT_TAKEN: Final = "Address already in use"  # as both programs write it

# Overridden line by line by the caller's own configuration.
_PRIVATE: Final = {
    "user": "root",  # started by root it would otherwise become one who cannot write its folder
    "persistence": "true",
    "autosave_interval": "10",
    "allow_anonymous": "true",
    "log_dest": "stderr",
    "connection_messages": "false",
    # A fleet's backlog must fit: beyond 1,000 queued Mosquitto would drop in silence.
    "max_queued_messages": "100000",
    "max_inflight_messages": "100",
    # Without it a small packet waits for the acknowledgement of the one before: 40 ms.
    "set_tcp_nodelay": "true",
    "message_size_limit": "131072",
}


class BrokerUnavailable(TwinError):  # noqa: N818 - reads as the state it is
    """No broker of the wished kind can run on this machine."""

    def __init__(self, wished: str, reasons: Sequence[str]) -> None:
        self.wished, self.reasons = wished, tuple(reasons)
        super().__init__(
            f"No MQTT broker ({wished}) can run here: {'; '.join(reasons)}. "
            "Install Mosquitto 2 (Debian and Ubuntu: sudo apt-get install mosquitto; "
            "macOS: brew install mosquitto)."
        )


@dataclass(frozen=True)
class BrokerTls:
    """Certificates of a TLS listener; by default a client needs one too and its CN is its name."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    require_certificate: bool = True

    def lines(self) -> list[str]:
        """The lines of a Mosquitto configuration."""
        return [
            f"cafile {self.ca_file}",
            f"certfile {self.certificate_file}",
            f"keyfile {self.key_file}",
            f"require_certificate {str(self.require_certificate).lower()}",
            f"use_identity_as_username {str(self.require_certificate).lower()}",
        ]


class Backend(Protocol):
    """One broker program."""

    kind: ClassVar[Kind]
    mqtt_version: ClassVar[MqttVersion]
    ready_mark: ClassVar[str]

    def command(self, folder: Path, port: int) -> list[str]:
        """The command that serves `port`, its state in `folder`; may write its configuration."""

    def environment(self) -> dict[str, str]:
        """The environment of that command."""


@dataclass(frozen=True)
class MosquittoBackend:
    """Mosquitto 2, with persistence."""

    binary: MosquittoBinary
    config_lines: tuple[str, ...] = ()

    kind: ClassVar[Kind] = "mosquitto"
    mqtt_version: ClassVar[MqttVersion] = "5"
    ready_mark: ClassVar[str] = " running"

    def command(self, folder: Path, port: int) -> list[str]:
        """Write mosquitto.conf and name it."""
        config = folder / "mosquitto.conf"
        config.write_text("\n".join(self._config(folder, port)) + "\n", encoding="utf-8")
        return [str(self.binary.path), "-c", str(config)]

    def environment(self) -> dict[str, str]:
        """With the folders of the unpacked libraries."""
        return self.binary.environment()

    def _config(self, folder: Path, port: int) -> list[str]:
        own = {line.split(maxsplit=1)[0] for line in self.config_lines if line.strip()}
        base = {**_PRIVATE, "persistence_location": f"{folder}/"}
        kept = [f"{key} {value}" for key, value in base.items() if key not in own]
        return [*kept, f"listener {port} {LOOPBACK}", *self.config_lines]


@dataclass(frozen=True)
class AmqttBackend:
    """The embedded broker: MQTT 3.1.1, nothing kept over a restart."""

    kind: ClassVar[Kind] = "amqtt"
    mqtt_version: ClassVar[MqttVersion] = "3.1.1"
    ready_mark: ClassVar[str] = "embedded broker is listening"  # importing amqtt takes 0.3 s

    def command(self, folder: Path, port: int) -> list[str]:
        """The Python that runs, on the module of the embedded broker."""
        del folder
        return [sys.executable, "-m", "demo.embedded_broker", str(port)]

    def environment(self) -> dict[str, str]:
        """With the folder that `demo` is in."""
        root = str(Path(__file__).resolve().parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, inherited]))}


def choose_backend(source: Source = "any", config_lines: Sequence[str] = ()) -> Backend:
    """The best broker among the wished ones; the embedded one cannot obey `config_lines`.

    Raises BrokerUnavailable.
    """
    reasons: list[str] = []
    for name in _candidates(source):
        if name == "amqtt" and config_lines:
            reasons.append("the embedded broker knows no TLS, access lists or other settings")
            continue
        backend = _FINDERS[name](tuple(config_lines), reasons)
        if backend is not None:
            return backend
    raise BrokerUnavailable(source, reasons)


def _candidates(source: Source) -> tuple[str, ...]:
    return {
        "any": ("installed", "unpacked", "amqtt"),
        "mosquitto": ("installed", "unpacked"),
    }.get(source, (source,))


def _installed(config_lines: tuple[str, ...], reasons: list[str]) -> Backend | None:
    binary = installed_mosquitto()
    if binary is not None:
        return MosquittoBackend(binary, config_lines)
    reasons.append("no Mosquitto 2 is installed")
    return None


def _unpacked(config_lines: tuple[str, ...], reasons: list[str]) -> Backend | None:
    try:
        binary = unpacked_mosquitto(broker_home())
    except (PackageUnavailableError, OSError) as error:
        reasons.append(str(error).rstrip("."))
        return None
    if binary is not None:
        return MosquittoBackend(binary, config_lines)
    reasons.append(f"the Mosquitto unpacked in {broker_home()} does not run")
    return None


def _embedded(_config_lines: tuple[str, ...], reasons: list[str]) -> Backend | None:
    if importlib.util.find_spec("amqtt") is not None:
        return AmqttBackend()
    reasons.append("the Python package amqtt is not installed")
    return None


_FINDERS: Final[dict[str, Callable[[tuple[str, ...], list[str]], Backend | None]]] = {
    "installed": _installed,
    "unpacked": _unpacked,
    "amqtt": _embedded,
}
