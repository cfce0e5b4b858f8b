"""The service's configuration file: TOML in, a checked value out.

Must never guess: an unknown key is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cloud.errors import ConfigError

# Labels of up to 63 characters, or an IPv6 address; without spaces.
_HOST = r"^[^\s\x00.]{1,63}(\.[^\s\x00.]{1,63})*\.?\Z"
Host = Annotated[str, msgspec.Meta(pattern=_HOST, max_length=253)]
File = Annotated[str, msgspec.Meta(min_length=1, pattern=r"^[^\x00]+\Z")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker's authority; certificate and key too when the broker asks for them."""

    ca_file: File
    cert_file: File | None = None
    key_file: File | None = None


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker. `client_id` names the persistent session: one service each."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: Text = "twin-cloud"
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=1200)] = 60
    tls: Tls | None = None


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The SQLite database."""

    path: File


class Bundles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folders of the bundles that vehicles of this service run."""

    paths: Annotated[list[File], msgspec.Meta(min_length=1)]


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The private key that signs revisions."""

    private: File


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the operator API listens. Port 0 lets the system choose one."""

    host: Host = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that `twin-cloud serve` needs to know. Paths are relative to the file."""

    store: Store
    bundles: Bundles
    keys: Keys
    mqtt: Mqtt = Mqtt()
    api: Api = Api()
    base: str = "."

    def path(self, name: str) -> Path:
        """A path of this configuration, resolved against the folder of its file."""
        return Path(self.base) / name


def load_config(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        content = msgspec.toml.decode(path.read_bytes())
        if "base" in content:  # the loader's own field
            raise ConfigError(path, "Object contains unknown field `base`")
        config = msgspec.convert(content, Config)
    except OSError as error:
        raise ConfigError(path, f"it cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(path, str(error)) from error
    return _resolved(config, path.parent)


def _resolved(config: Config, base: Path) -> Config:
    """With the paths of the TLS files, which the link opens by itself, relative to the file."""
    mqtt = config.mqtt
    if mqtt.tls is not None:
        named = {name: getattr(mqtt.tls, name) for name in mqtt.tls.__struct_fields__}
        files = {name: str(base / file) for name, file in named.items() if file is not None}
        mqtt = msgspec.structs.replace(mqtt, tls=Tls(**files))
    return msgspec.structs.replace(config, mqtt=mqtt, base=str(base))
