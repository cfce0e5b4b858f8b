"""The service's configuration file: TOML in, a checked value out.

Must never guess: an unknown key is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from cloud.errors import ConfigError
from cloud.location import Location, PostgresUrl, located
from cloud.security.settings import Api, Oidc, problem_of
from cloud.security.signing_settings import Keys, problem_of_keys
from common.settings_file import File, Host, Port, below, decode_settings

Text = Annotated[str, msgspec.Meta(min_length=1)]
PostgresText = Annotated[str, msgspec.Meta(pattern="^postgres(ql)?://")]
STORE_URL: Final = "TWIN_STORE_URL"


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker's authority; certificate and key too when the broker asks for them."""

    ca_file: File
    cert_file: File | None = None
    key_file: File | None = None


class Aws(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `transport = "aws"`.

    With a `sigv4_region` it is a WebSocket signed by the credentials that AWS's tools find, without
    one the certificate of [mqtt.tls]. `limits` keeps to what AWS IoT Core takes of one connection;
    another broker does not need it.
    """

    sigv4_region: Text | None = None
    limits: bool = True


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker. `client_id` names the persistent session: one service each.

    Services with the same `shared_group` divide the vehicles' messages among them.
    `transport` is the client: paho for any broker, AWS's own for AWS IoT Core.
    """

    host: Host = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: Text = "twin-cloud"
    shared_group: Annotated[str, msgspec.Meta(pattern="^[^/+#]+$")] | None = None
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=1200)] = 60
    tls: Tls | None = None
    transport: Literal["paho", "aws"] = "paho"
    aws: Aws = Aws()


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The database: a SQLite file, or a PostgreSQL URL, which a file may hold that is kept secret.

    The environment's TWIN_STORE_URL goes before what stands here.
    """

    path: File | None = None
    url: PostgresText | None = None
    url_file: File | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.path, self.url, self.url_file) if value is not None]
        if len(given) > 1:
            problem = "[store] takes one of path, url and url_file"
            raise ValueError(problem)


class Bundles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folders of the bundles that vehicles of this service run."""

    paths: Annotated[list[File], msgspec.Meta(min_length=1)]


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A worker process beside others, on PostgreSQL.

    Vehicles are in 64 lanes; a worker has up to `lanes` of them in hand at one time. It ends, and
    another takes over, when one round of calibrations takes longer than `deadline_s`.
    """

    lanes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 64
    deadline_s: Annotated[float, msgspec.Meta(ge=1)] = 60.0


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where `ingest` and `worker` answer health checks and metrics; without a port, nowhere.

    Port 0 lets the system choose one. The API and `serve` answer them beside the API.
    """

    host: Host = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a log line on stderr looks like: logfmt, or one JSON object."""

    format: Literal["text", "json"] = "text"


class Tracing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where spans of breaches go: the full address of an OTLP/HTTP collector; without one, nowhere.

    `ratio` of the breaches is traced, the same ones by every process.
    """

    endpoint: Text | None = None
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class Heads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often every chain's head is signed, and where it is kept: a folder, `s3://bucket/prefix`.

    Workers that share the work do it in whole minutes. `trusted_keys` (public, PEM) may have signed
    revisions besides the service's own key: earlier ones, from before a rotation.
    """

    every_minutes: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    keep_in: File | None = None
    trusted_keys: list[File] = []


class Webhooks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Networks (`10.0.0.0/8`) that webhooks may be carried to though they are not public."""

    allow: list[Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]] = []


class Traces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the traces of settled breaches are kept, and where; revisions are kept for ever.

    Without an `archive` (a folder, `s3://bucket/prefix`) every trace stays in the database. With
    one, what is older than `keep_days_in_database` moves there as Parquet; there a whole month is
    removed when all of it is older than `keep_days` (none: never). `endpoint` is for a storage that
    speaks S3 and is not AWS.
    """

    archive: File | None = None
    endpoint: Text | None = None
    keep_days_in_database: Annotated[float, msgspec.Meta(ge=0)] = 90.0
    keep_days: Annotated[float, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.keep_days is not None and self.keep_days < self.keep_days_in_database:
            problem = (
                "[traces] keep_days counts from the breach: no less than keep_days_in_database"
            )
            raise ValueError(problem)
        if self.keep_days is not None and self.archive is None:
            raise ValueError("[traces] keep_days is about the archive, and there is none")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that `twin-cloud serve` needs to know. Paths are relative to the file."""

    bundles: Bundles
    keys: Keys
    store: Store = Store()
    mqtt: Mqtt = Mqtt()
    api: Api = Api()
    worker: Worker = Worker()
    health: Health = Health()
    logs: Logs = Logs()
    tracing: Tracing = Tracing()
    oidc: Oidc | None = None
    heads: Heads = Heads()
    traces: Traces = Traces()
    webhooks: Webhooks = Webhooks()
    base: str = "."

    def path(self, name: str) -> Path:
        """A path of this configuration, resolved against the folder of its file."""
        return Path(self.base) / name

    def database(self, environment: Mapping[str, str] = os.environ) -> Location:
        """Where the database is. Raises ConfigError."""
        if environment.get(STORE_URL):
            return _postgres(environment[STORE_URL], STORE_URL)
        if self.store.path is not None:
            return self.path(self.store.path)
        if self.store.url is not None:
            return _postgres(self.store.url, "[store] url")
        if self.store.url_file is None:
            raise ConfigError(self.base, "[store] has neither path, url nor url_file")
        path = self.path(self.store.url_file)
        try:
            return _postgres(path.read_text(encoding="utf-8").strip(), path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(path, "its URL cannot be read") from error


def load_config(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        config = decode_settings(path.read_bytes(), Config)
    except OSError as error:
        raise ConfigError(path, f"it cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(path, str(error)) from error
    problem = problem_of(config.api, config.oidc) or problem_of_keys(config.keys)
    if problem is not None:
        raise ConfigError(path, problem)
    mqtt = msgspec.structs.replace(config.mqtt, tls=below(config.mqtt.tls, path.parent))
    return msgspec.structs.replace(config, mqtt=mqtt, base=str(path.parent))


def _postgres(text: str, where: object) -> PostgresUrl:
    found = located(text)
    if not isinstance(found, PostgresUrl):
        raise ConfigError(where, "it is no URL that begins with postgresql://")
    return found
