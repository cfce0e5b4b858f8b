"""The agent's configuration file: TOML in, a checked value out.

Must never guess: an unknown key is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.errors import TopicError
from common.settings_file import File, Host, Port, below, decode_settings
from common.topics import check_identifier
from edge_agent.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mutual TLS: the broker's authority, and this vehicle's certificate and key."""

    ca_file: File
    cert_file: File
    key_file: File


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker."""

    host: Host = "127.0.0.1"
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
    bundle: File
    state: File
    trusted_keys: Annotated[list[File], msgspec.Meta(min_length=1)]
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
        config = decode_settings(raw, Config)
        check_identifier("vehicle_id", config.vehicle_id)
    except (msgspec.MsgspecError, UnicodeDecodeError, TopicError) as error:
        raise ConfigError(path, str(error)) from error
    if config.source.kind == "file" and not config.source.path:
        raise ConfigError(path, 'source.kind is "file" but source.path names none')
    base = path.resolve().parent
    mqtt = msgspec.structs.replace(config.mqtt, tls=below(config.mqtt.tls, base))
    return msgspec.structs.replace(config, mqtt=mqtt, base=str(base))
