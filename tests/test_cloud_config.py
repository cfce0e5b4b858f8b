"""Configuration and command line: each mistake gives one sentence and the right exit code."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from cloud import cli
from cloud.cli import TRAINING
from cloud.config import Config, load_config
from cloud.errors import ConfigError, PortOccupiedError, StoreError
from cloud.intake.interpretation import Delivery
from cloud.roles.service import serve
from common.errors import BundleError, KeyFileError
from common.signing import create_key_pair
from tests.cloud_doubles import Insides, write_bundle
from tests.support_command_line import twin_cloud

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "deploy" / "cloud" / "twin-cloud.toml"
MINIMAL = """
[store]
path = "twin.db"
[bundles]
paths = ["bundle"]
[keys]
private = "keys/private.pem"
"""


@dataclass
class Done:
    """What a command line left."""

    returncode: int
    stdout: str
    stderr: str


class Run(Protocol):
    """Run `twin-cloud` in this process."""

    def __call__(self, *arguments: object) -> Done: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Done:
        return Done(*twin_cloud(monkeypatch, capsys, *arguments))

    return call


def run_apart(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `twin-cloud` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cloud.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        check=False,
    )


def test_a_minimal_configuration_has_defaults_and_paths_beside_itself(tmp_path: Path) -> None:
    path = tmp_path / "twin-cloud.toml"
    path.write_text(MINIMAL)
    config = load_config(path)
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.protocol) == ("127.0.0.1", 1883, "5")
    assert config.database({}) == tmp_path / "twin.db"


def test_the_example_configuration_is_valid() -> None:
    config = load_config(EXAMPLE)
    assert config.api.port == 8080


def test_the_example_configuration_names_every_key_with_its_default() -> None:
    without_comments = re.sub(r"^# (\[|\w+ =)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    shown = tomllib.loads(without_comments)
    found = dict(settings_in(msgspec.inspect.type_info(Config)))
    del found["base"]  # the file's own folder
    assert flat(shown).keys() == found.keys()
    for name, default in found.items():
        if default not in (msgspec.NODEFAULT, None, []):
            assert flat(shown)[name] == default, name


def settings_in(kind: msgspec.inspect.Type, within: str = "") -> Iterator[tuple[str, object]]:
    """Every key of a structure and of those inside it, by its path, with its default."""
    for one in kind.fields if isinstance(kind, msgspec.inspect.StructType) else ():
        inner = one.type
        if isinstance(inner, msgspec.inspect.UnionType):
            inner = next(t for t in inner.types if not isinstance(t, msgspec.inspect.NoneType))
        if isinstance(inner, msgspec.inspect.StructType):
            yield from settings_in(inner, f"{within}{one.encode_name}.")
        else:
            made = one.default_factory
            default = one.default if made is msgspec.NODEFAULT else made()
            yield f"{within}{one.encode_name}", default


def flat(table: dict[str, Any], within: str = "") -> dict[str, Any]:
    """The keys of a file by their paths; `[oidc] roles` is one value."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        is_section = isinstance(value, dict) and within + name != "oidc.roles"
        found |= flat(value, f"{within}{name}.") if is_section else {within + name: value}
    return found


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINIMAL + "[mqtt]\nprot = 1", "prot"),
        (MINIMAL + "[extra]\nx = 1", "extra"),
        (MINIMAL + '[mqtt]\nprotocol = "4"', "$.mqtt.protocol"),
        (MINIMAL + "[mqtt]\nport = 0", "$.mqtt.port"),
        ('[store]\npath = "x"', "bundles"),
        ("this is no TOML", "line 1"),
        ("\x00", "line 1"),
    ],
)
def test_a_wrong_configuration_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "twin-cloud.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        load_config(path)
    assert named in str(caught.value)


def test_a_missing_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, a bundle, a database with one revision and one refused message."""
    folder = tmp_path_factory.mktemp("cli")
    write_bundle(folder / "bundle")
    inside = Insides(folder, folder / "bundle")
    inside.take(inside.car().breach(5))
    inside.work()
    inside.take(Delivery("twin/v1/x/trip", b"garbage", mid=1))
    inside.store.close()
    return folder


def test_keys_are_made_once_and_shown(tmp_path: Path, run: Run) -> None:
    made = run("keys", "create", "--out", tmp_path / "keys")
    assert made.returncode == 0
    assert (tmp_path / "keys" / "private.pem").stat().st_mode & 0o777 == 0o600
    for name in ("private.pem", "public.pem"):
        assert run("keys", "show", tmp_path / "keys" / name).stdout == made.stdout
    again = run("keys", "create", "--out", tmp_path / "keys")
    assert again.returncode == 4
    assert "exists already" in again.stderr
    assert run("keys", "show", tmp_path / "none.pem").returncode == 3


def test_verify_history_and_quarantine_speak_json(folder: Path, run: Run) -> None:
    database = folder / "twin.db"
    [verified] = json.loads(run("verify", "--database", database, "--json").stdout)
    assert (verified["vehicle_id"], verified["ok"], verified["revisions"]) == ("car", True, 1)
    [revision] = json.loads(run("history", "car", "--database", database, "--json").stdout)
    assert revision["cause"]["trip_id"] == "trip5"
    [refused] = json.loads(run("quarantine", "--database", database, "--json").stdout)
    assert refused["payload_head"] == "garbage"


def test_verify_history_and_quarantine_show_tables(folder: Path, run: Run) -> None:
    database = folder / "twin.db"
    assert "True" in run("verify", "--database", database).stdout
    assert "number" in run("history", "car", "--database", database).stdout
    assert "twin/v1/x/trip" in run("quarantine", "--database", database).stdout


def test_a_broken_chain_is_exit_code_1_and_named(folder: Path, tmp_path: Path, run: Run) -> None:
    key = run("keys", "create", "--out", tmp_path / "other")
    assert key.returncode == 0
    done = run(
        *("verify", "--database", folder / "twin.db", "--json"),
        *("--public-key", tmp_path / "other" / "public.pem"),
    )
    assert done.returncode == 1
    [broken] = json.loads(done.stdout)
    assert (broken["vehicle_id"], broken["first_broken_revision"]) == ("car", 1)


def test_exit_codes_tell_usage_from_not_found(folder: Path, tmp_path: Path, run: Run) -> None:
    assert run("verify").returncode == 2
    assert run("verify", "--database", tmp_path / "none.db").returncode == 3
    assert run("history", "nobody", "--database", folder / "twin.db").returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_help_lists_exit_codes_examples_and_training() -> None:
    shown = run_apart("--help")
    assert shown.returncode == 0
    assert "0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable" in shown.stdout
    assert "twin-cloud serve --config twin-cloud.toml" in shown.stdout
    assert all(name in shown.stdout for name in TRAINING)


def test_without_the_train_extra_the_training_commands_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cloud.training.cli", None)
    monkeypatch.setattr(sys, "argv", ["twin-cloud", "train", "table.csv", "--out", "x"])
    registered = list(cli.app.registered_commands)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    cli.app.registered_commands[:] = registered
    assert ended.value.code == 1
    assert "living-twin[cloud,train]" in capsys.readouterr().err


def write_config(folder: Path, port: int = 0, **replaced: str) -> Path:
    names = {"store": "twin.db", "bundle": "bundle", "key": "keys/private.pem", **replaced}
    path = folder / "serve.toml"
    path.write_text(
        f'[store]\npath = "{names["store"]}"\n[bundles]\npaths = ["{names["bundle"]}"]\n'
        f'[keys]\nprivate = "{names["key"]}"\n'
        f'[api]\nauth = "none"\nport = {port}\n[mqtt]\nport = 1\n'
    )
    return path


def test_an_occupied_port_ends_the_start_before_anything_is_touched(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_apart("serve", "--config", write_config(tmp_path, taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("twin-cloud: The API cannot listen on 127.0.0.1")
    assert "[api] port" in done.stderr
    assert not (tmp_path / "twin.db").exists()


@pytest.mark.parametrize(
    ("replaced", "error", "sentence"),
    [
        ({"bundle": "none"}, BundleError, "manifest.json cannot be read"),
        ({"key": "none.pem"}, KeyFileError, "keys create"),
        ({"store": "serve.toml"}, StoreError, "no SQLite file"),
    ],
)
def test_what_serve_cannot_use_is_one_sentence_with_the_remedy(
    tmp_path: Path, replaced: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "keys" / "private.pem", tmp_path / "keys" / "public.pem")
    with pytest.raises(error, match=sentence):
        serve(load_config(write_config(tmp_path, **replaced)))


def test_the_api_cannot_listen_where_this_machine_is_not(tmp_path: Path) -> None:
    from cloud.roles.service import listen

    with pytest.raises(PortOccupiedError, match="no-such-host"):
        listen("no-such-host.invalid", 8080)
