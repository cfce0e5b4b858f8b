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
NonNegative = Annotated[float, msgspec.Meta(ge=0)]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mutual TLS: the broker's authority, and this vehicle's certificate and key.

    `alpn` is the protocol name to offer; left out, that of AWS IoT Core on port 443, else none.
    """

    ca_file: File
    cert_file: File
    key_file: File
    alpn: Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[!-~]*\Z")] | None = None


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_s: Annotated[int, msgspec.Meta(ge=30, le=1200)] = 60
    tls: Tls | None = None


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signal that the agent makes of another within a trip, times `scale`.

    `odometer`: the way since the trip's start. `mean`, `integral` (over seconds), `first`: of the
    signal `of`, since the trip's start.
    """

    how: Literal["odometer", "mean", "integral", "first"]
    of: str = ""
    scale: float = 1.0


class CanSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signal of the DBC: what the agent takes is `scale` × its physical value + `offset`.

    `message` where several messages have a signal of this name; `stale_s` for one that is rare.
    """

    signal: str
    message: str = ""
    scale: float = 1.0
    offset: float = 0.0
    stale_s: Positive | None = None


class CanCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signals by which a message of the DBC shows that it is alive and whole.

    `counter` counts every frame; `crc` is a byte of its own, CRC-8 SAE J1850 over the others.
    """

    counter: str = ""
    crc: str = ""


class Can(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The car's CAN bus, as python-can and cantools name things.

    `signals`: for each name that the agent needs, where it stands in the DBC. A sample is formed
    every `interval_s` of what is no older than `stale_s`; at most `frames_per_s` are looked at.
    """

    dbc: File
    signals: dict[str, CanSignal]
    interface: str = "socketcan"
    channel: str = "can0"
    options: dict[str, str | int | float | bool] = {}
    checks: dict[str, CanCheck] = {}
    interval_s: Annotated[float, msgspec.Meta(ge=0.01)] = 1.0
    stale_s: Positive = 2.0
    frames_per_s: Annotated[int, msgspec.Meta(ge=10)] = 5000


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where samples come from; the columns (or JSON keys) that are no features.

    `speed` is for a file that `run` plays: 1 as it was recorded, 10 ten times faster, 0 at once.
    """

    kind: Literal["stdin", "file", "can"] = "stdin"
    path: str = ""
    speed: NonNegative = 0.0
    derived: dict[str, Derived] = {}
    can: Can | None = None
    time_s: str = "time_s"
    odometer: str = "odometer"
    trip_id: str = "trip_id"
    ignition: str = "ignition"
    vehicle_id: str = "vehicle_id"


class Trips(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How trips are told apart where the source names none: by when the car is on.

    That is by its `ignition`, or by `motion`: the discharge current (positive) or the speed, which
    are the signals of these names, exceed `start_…`; off when both are at most `stop_…`. On and
    off count once they have lasted so long.
    """

    by: Literal["ignition", "motion"] = "ignition"
    on_after_s: NonNegative = 0.0
    off_after_s: NonNegative = 0.0
    current: str = "current_a"
    speed: str = "speed_m_s"
    start_current_a: float = 5.0
    stop_current_a: float = 1.0
    start_speed_m_s: float = 1.0
    stop_speed_m_s: float = 0.3

    @property
    def signals(self) -> tuple[str, ...]:
        """What must come with every sample."""
        return (self.current, self.speed) if self.by == "motion" else ()


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds and time-outs."""

    outbox_messages: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    outbox_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 * 1024 * 1024
    bundle_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 16 * 1024 * 1024
    outbox_days: Positive = 90.0
    trace_points: Annotated[int, msgspec.Meta(ge=4, le=512)] = 50
    min_trip_samples: Annotated[int, msgspec.Meta(ge=2)] = 10
    trip_gap_s: Positive = 300.0
    checkpoint_s: Positive = 60.0
    receipt_timeout_s: Positive = 30.0
    status_interval_s: Positive = 300.0


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The live view, for a head unit and `edge-agent status --watch`: on 127.0.0.1 only."""

    port: Annotated[int, msgspec.Meta(ge=1024, le=65535)] = 8377


class LocalRecalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let the vehicle calibrate for itself once the broker has been away for so long."""

    after_offline_h: Positive


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that one agent needs to know. Paths are relative to the file they stand in.

    `trusted_keys` sign revisions; `root_keys` say which keys do so from now on (none: the trusted
    keys themselves).
    """

    vehicle_id: str
    bundle: File
    state: File
    trusted_keys: Annotated[list[File], msgspec.Meta(min_length=1)]
    root_keys: list[File] = []
    mqtt: Mqtt = Mqtt()
    source: Source = Source()
    trips: Trips = Trips()
    limits: Limits = Limits()
    live: Live | None = None
    local_recalibration: LocalRecalibration | None = None
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
    problem = _problem(config)
    if problem is not None:
        raise ConfigError(path, problem)
    base = path.resolve().parent
    mqtt = msgspec.structs.replace(config.mqtt, tls=below(config.mqtt.tls, base))
    return msgspec.structs.replace(config, mqtt=mqtt, base=str(base))


def _problem(config: Config) -> str | None:
    """What each field alone cannot tell."""
    source, trips = config.source, config.trips
    if trips.stop_current_a > trips.start_current_a or trips.stop_speed_m_s > trips.start_speed_m_s:
        return "[trips] has a stop_… above its start_…: a car would be on and off at once"
    if source.kind == "file" and not source.path:
        return 'source.kind is "file" but source.path names none'
    if source.kind == "can" and source.can is None:
        return 'source.kind is "can" but there is no [source.can]'
    for name, derived in source.derived.items():
        if (derived.how == "odometer") == bool(derived.of):
            what = "is the way itself" if derived.of else f"is the {derived.how} of which signal"
            return f"source.derived.{name} {what}: `of` is for mean, integral and first"
        if derived.of in source.derived:
            return f"source.derived.{name} is derived from {derived.of}, which is derived itself"
    return None
