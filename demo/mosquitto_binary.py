"""Where a usable Mosquitto is: on the machine, or its package unpacked into the project's folder.

Must never need root and never start a broker; it only finds one and asks for its version.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.debian_packages import unpack

_VERSION: Final = re.compile(r"mosquitto version (\d+)\.(\d+)\.(\d+)")
_OLDEST: Final = (2, 0, 0)
# A desktop user's PATH often lacks the sbin folders where distributions put it.
_BESIDE_PATH: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


@dataclass(frozen=True)
class MosquittoBinary:
    """An executable, the folders of the libraries it needs, and its version."""

    path: Path
    library_path: str
    version: tuple[int, ...]

    def environment(self) -> dict[str, str]:
        """The environment to run it in."""
        return _environment(self.library_path)


def installed_mosquitto() -> MosquittoBinary | None:
    """The machine's own Mosquitto 2 or newer, if it has one."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_BESIDE_PATH])
    found = shutil.which("mosquitto", path=folders)
    return _probe(Path(found), "") if found else None


def unpacked_mosquitto(home: Path) -> MosquittoBinary | None:
    """Mosquitto unpacked under `home`, downloaded first where it is not there yet.

    None when what was unpacked does not run here. Raises PackageUnavailableError.
    """
    tree = home / f"mosquitto-{platform.machine()}"
    unpack("mosquitto", tree)
    return _probe(tree / "usr/sbin/mosquitto", _libraries(tree))


def broker_home() -> Path:
    """The folder for unpacked brokers: the checkout's `.broker`, or a cache folder of the user."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return root / ".broker"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "living-twin" / "broker"


def _libraries(tree: Path) -> str:
    folders = [*tree.glob("usr/lib/*-linux-gnu*"), *tree.glob("lib/*-linux-gnu*")]
    return os.pathsep.join(str(folder) for folder in sorted(folders))


def _environment(library_path: str) -> dict[str, str]:
    own = {"LD_LIBRARY_PATH": library_path} if library_path else {}
    return {**os.environ, **own}


def _probe(path: Path, library_path: str) -> MosquittoBinary | None:
    """The binary if it starts (all libraries found) and is new enough for MQTT 5."""
    try:
        told = subprocess.run(
            [str(path), "-h"],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
            env=_environment(library_path),
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(told)
    version = tuple(int(part) for part in match.groups()) if match else (0,)
    return MosquittoBinary(path, library_path, version) if version >= _OLDEST else None
