"""What `deploy/` says of the roles is what the command line and the health checks know."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]
from typer.core import TyperGroup

from cloud.cli import app
from cloud.observability import probes

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "deploy" / "cloud" / "compose.yaml"
KUBERNETES = ROOT / "deploy" / "kubernetes" / "twin-cloud.yaml"
UNIT = ROOT / "deploy" / "systemd" / "twin-cloud@.service"


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of these arguments; fails on what it does not know."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        context: Any = command.make_context("twin-cloud", [], resilient_parsing=True)
        name, *arguments = arguments
        command = command.get_command(context, name)
        assert command is not None, f"there is no command {name}"
    return dict(command.make_context(command.name, arguments).params)


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")))


def containers() -> Iterator[dict[str, Any]]:
    for one in manifests():
        if one["kind"] in {"Deployment", "Job"}:
            yield from one["spec"]["template"]["spec"]["containers"]


def test_every_container_runs_a_command_that_there_is() -> None:
    args = [one["args"] for one in containers()]
    assert sorted(one[0] for one in args) == ["api", "database", "ingest", "worker"]
    for one in args:
        assert parsed([part.replace("$(TWIN_STORE_URL)", "t.db") for part in one])


def test_probes_ask_paths_that_are_answered() -> None:
    for container in containers():
        if "livenessProbe" in container:
            assert container["livenessProbe"]["httpGet"]["path"] == probes.LIVE
            assert container["readinessProbe"]["httpGet"]["path"] == probes.READY
    assert sum("livenessProbe" in one for one in containers()) == 3


def test_every_manifest_names_its_kind_and_selects_its_own_pods() -> None:
    kinds = [(one["apiVersion"], one["kind"]) for one in manifests()]
    assert kinds == [("batch/v1", "Job"), *[("apps/v1", "Deployment")] * 3, ("v1", "Service")]
    for one in manifests()[1:4]:
        spec = one["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_every_service_of_compose_runs_a_command_that_there_is() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    commands = {name: one["command"] for name, one in services.items() if "command" in one}
    assert set(commands) == {"ingest-1", "ingest-2", "worker", "api"}
    instances = [parsed(one).get("instance") for one in commands.values()]
    assert sorted(filter(None, instances)) == ["1", "2"]


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("ingest-2", {"instance": "ingest-2"}),
        ("worker-1", {"health_port": None}),
        ("api", {}),
    ],
)
def test_an_instance_of_the_unit_is_a_role(instance: str, expected: dict[str, object]) -> None:
    text = UNIT.read_text(encoding="utf-8").replace("\\\n", "")
    [start] = re.findall(r"^ExecStart=/bin/sh -c '(.*)' sh %i$", text, flags=re.MULTILINE)
    script = start.replace("$$", "$").replace("%%", "%")
    script = script.replace("exec /opt/living-twin/bin/twin-cloud", "printf '%s\\n'")
    done = subprocess.run(
        ["sh", "-c", script, "sh", instance], check=True, capture_output=True, text=True
    )
    arguments = done.stdout.split()
    assert arguments[0] == instance.partition("-")[0]
    found = parsed(arguments)
    assert Path(str(found["config"])) == Path("/etc/twin-cloud/twin-cloud.toml")
    assert expected.items() <= found.items()
