"""The agent as `deploy/edge/install.sh` puts it on a vehicle: an environment of its own.

Must never count nor share what only a developer's environment has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "edge-agent.service"


@dataclass(frozen=True)
class Installed:
    """An environment with the agent: its folder, how Python is called, and how it came about."""

    folder: Path | None
    command: tuple[str, ...]
    how: str

    def size_mb(self) -> float | None:
        """Everything below the folder in MB (10^6 bytes), the system's Python not included."""
        if self.folder is None:
            return None
        files = (path for path in self.folder.rglob("*") if not path.is_symlink())
        return sum(path.stat().st_size for path in files if path.is_file()) / 1e6

    def evict(self) -> None:
        """Let go of the page cache of its own files, as after a boot; needs no root."""
        if self.folder is None:
            return
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                file = os.open(path, os.O_RDONLY)
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def install(folder: Path) -> Installed:
    """The locked packages and the project's two; without a package index, this environment."""
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    lock = ROOT / "requirements" / "edge.lock"
    packages = ["pip", "install", "--link-mode", "copy", "--require-hashes", "-r", str(lock)]
    try:
        _run([*uv, "venv", "--python", sys.executable, str(folder)])
        _run([*uv, *packages, "--python", str(python)])
    except subprocess.CalledProcessError:
        return Installed(None, (sys.executable,), "this environment, no package index answers")
    (site,) = folder.glob("lib/python*/site-packages")
    for package in ("common", "edge_agent"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("*.pyc"))
    _run(["sh", str(ROOT / "deploy" / "edge" / "slim.sh"), str(folder)])
    version = "{}.{}".format(*sys.version_info[:2])
    return Installed(
        folder, (str(python), "-OO"), f"requirements/edge.lock slimmed, Python {version}"
    )


def unit_environment() -> dict[str, str]:
    """What the service's unit sets for the agent."""
    words: list[str] = []
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("Environment="):
            words += line.removeprefix("Environment=").split()
    return dict(word.split("=", 1) for word in words)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
