"""The documentation is true: the guide's commands work, the reference fits the code, links lead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cloud.config import load_config as load_cloud_config
from common.messages import RefusalReason
from common.release import ReleaseReason, ReleaseState
from demo.loop import free_port
from edge_agent.config import load_config as load_agent_config
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")])
FENCE = re.compile(r"^```(\S+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Terminal:
    """A folder to type in, with the programs of this environment on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = str(Path(sys.executable).parent)
        self.environment = {**os.environ, "PATH": f"{own}:{os.environ['PATH']}"}
        self.ports = {"18830": str(free_port()), "18080": str(free_port())}

    def typed(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return text.replace("make broker ARGS=", "python -m demo.broker ")

    def run(self, block: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.typed(block)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def leave_running(self, command: str, says: str) -> Iterator[None]:
        path = self.folder / f"terminal-{len(list(self.folder.glob('terminal-*')))}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.typed(command)}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(lambda: says in path.read_text(), 30.0, f"{says!r} from {command}")
            yield
        finally:
            process.terminate()
            process.wait(20)


def fences(page: Path) -> list[tuple[str, str, str]]:
    """(language, note, text) of every code block."""
    return [(m[1], m[2], m[3]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.timeout(300)
def test_the_guide_works_as_it_stands(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    shown = {}
    signs = iter(["Ctrl-C ends it", "ready api="])
    with ExitStack() as running:
        for language, note, text in fences(ROOT / "docs" / "guide.md"):
            assert language == "sh"
            if "make setup" in text:
                continue
            if note == "terminal":
                running.enter_context(terminal.leave_running(text.strip(), next(signs)))
            else:
                shown[text.split("=")[0].split()[0]] = terminal.run(text)
    assert next(signs, None) is None
    assert '"state_of_health":' in shown["api"]
    assert '"band95_lower_v":' in shown["api"]
    assert "applied" in shown["api"]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help anew in 3.13")
def test_the_reference_is_what_the_code_says() -> None:
    command = [sys.executable, "tools/write_reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_reason_of_a_refusal_is_explained() -> None:
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    for reason in RefusalReason.__args__:  # type: ignore[attr-defined]
        assert not reason or f"`{reason}`" in page


def test_every_state_and_reason_of_a_release_is_explained() -> None:
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    for word in (*ReleaseReason.__args__, *ReleaseState.__args__):  # type: ignore[attr-defined]
        assert not word or f"`{word}`" in page


def test_every_target_of_make_says_what_it_does() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^  {target} +\S", shown, re.MULTILINE), target


def test_the_configurations_that_ship_are_accepted() -> None:
    agent, service = ROOT / "deploy/edge/agent.toml", ROOT / "deploy/cloud/twin-cloud.toml"
    assert load_agent_config(agent).vehicle_id == "vehicle-0001"
    assert load_cloud_config(service).mqtt.client_id == "twin-cloud"
    for path in (agent, service):
        without_comments = re.sub(r"^# (\[|\w+ =)", r"\1", path.read_text(), flags=re.MULTILINE)
        assert "tls" in tomllib.loads(without_comments)["mqtt"]
