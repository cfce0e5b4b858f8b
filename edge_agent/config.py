"""The agent's configuration file: TOML in, a checked value out.

Must never guess: an unknown key is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.errors import TopicError
from common.topics import check_identifier
from edge_agent.errors import ConfigError

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mutual TLS: the broker's authority, and this vehicle's certificate and key."""

    ca_file: str
    cert_file: str
    key_file: str


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker."""

    host: str = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_s: Annotated[int, msgspec.Meta(ge=30, le=1200)] = 60
    tls: Tls | None = None


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where samples come from; the columns (or JSON keys) that are no features."""

    kind: Literal["stdin", "file"] = "stdin"
    path: str = ""
    time_s: str = "time_s"
    odometer: str = "odometer"
    trip_id: str = "trip_id"
    ignition: str = "ignition"
    vehicle_id: str = "vehicle_id"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds and time-outs."""

    outbox_messages: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    outbox_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 * 1024 * 1024
    trace_points: Annotated[int, msgspec.Meta(ge=4, le=512)] = 50
    min_trip_samples: Annotated[int, msgspec.Meta(ge=2)] = 10
    trip_gap_s: Positive = 300.0
    receipt_timeout_s: Positive = 30.0
    status_interval_s: Positive = 300.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that one agent needs to know. Paths are relative to the file they stand in."""

    vehicle_id: str
    bundle: str
    state: str
    trusted_keys: Annotated[list[str], msgspec.Meta(min_length=1)]
    mqtt: Mqtt = Mqtt()
    source: Source = Source()
    limits: Limits = Limits()
    base: str = "."

    def path(self, name: str) -> Path:
        """A path of this configuration, resolved against the folder of its file."""
        return Path(self.base) / name


def load_config(path: Path) -> Config:
    """Read and check the file. Raises ConfigError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, f"it cannot be read ({error.strerror})") from error
    try:
        config = msgspec.toml.decode(raw, type=Config)
        check_identifier("vehicle_id", config.vehicle_id)
    except (msgspec.MsgspecError, UnicodeDecodeError, TopicError) as error:
        raise ConfigError(path, str(error)) from error
    return msgspec.structs.replace(config, base=str(path.resolve().parent))
