"""Debian and Ubuntu packages unpacked into a folder of one's own: no root, nothing installed.

Must never change the machine outside the given folder, nor import anything beyond the standard
library: the bootstrap uses it before any package is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PLANNED: Final = re.compile(r"^Inst (\S+)", re.MULTILINE)
_TOOLS: Final = ("apt-get", "dpkg-deb")
_DEADLINE_S: Final = 300.0


class PackageUnavailableError(Exception):
    """A Debian package could not be fetched or unpacked."""

    def __init__(self, package: str, reason: str) -> None:
        self.package, self.reason = package, reason
        super().__init__(
            f"The Debian package {package} could not be unpacked without root: {reason}. "
            f"Install it yourself: sudo apt-get install {package}"
        )


def can_unpack() -> bool:
    """Whether this machine has Debian's tools at all."""
    return all(shutil.which(tool) for tool in _TOOLS)


def unpack(package: str, folder: Path) -> None:
    """Fill `folder` with the package and those of its dependencies that the machine lacks.

    The folder appears whole or not at all; one that exists is left as it is.
    Raises PackageUnavailableError.
    """
    if folder.is_dir():
        return
    if not can_unpack():
        raise PackageUnavailableError(package, "this is no Debian or Ubuntu machine")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
        _fetch(package, Path(scratch))
        tree = _extract(package, Path(scratch))
        _publish(tree, folder)


def _publish(tree: Path, folder: Path) -> None:
    try:
        tree.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster with the very same content
            raise


def _fetch(package: str, scratch: Path) -> None:
    """Download into `scratch`, with the machine's package lists or, failing that, fresh ones."""
    options = ["-qq", "-o", "APT::Sandbox::User=root"]
    try:
        _download(package, scratch, options)
    except PackageUnavailableError:
        own = [*options, *_own_lists(scratch / "apt")]
        _apt(package, scratch, [*own, "update"])
        _download(package, scratch, own)


def _own_lists(folder: Path) -> list[str]:
    """Options that make apt keep its lists here, where no root is needed."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return [
        *("-o", f"Dir::State::Lists={folder / 'lists'}"),
        *("-o", f"Dir::Cache={folder / 'cache'}"),
        *("-o", "Debug::NoLocking=1"),
    ]


def _download(package: str, scratch: Path, options: list[str]) -> None:
    simulate = ["install", "--simulate", "--no-install-recommends", package]
    # Without -qq: the plan is what this run is for.
    plan = _apt(package, scratch, [*options[1:], *simulate])
    wanted = sorted({package, *_PLANNED.findall(plan)})
    _apt(package, scratch, [*options, "download", *wanted])


def _extract(package: str, scratch: Path) -> Path:
    tree = scratch / "tree"
    for archive in sorted(scratch.glob("*.deb")):
        _run(package, scratch, ["dpkg-deb", "--extract", str(archive), str(tree)])
    if not tree.is_dir():
        raise PackageUnavailableError(package, "the download brought no archive")
    return tree


def _apt(package: str, folder: Path, arguments: list[str]) -> str:
    return _run(package, folder, ["apt-get", *arguments])


def _run(package: str, folder: Path, command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.CalledProcessError as error:
        raise PackageUnavailableError(package, _last_line(error.stderr)) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageUnavailableError(package, str(error)) from error
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "apt-get failed without a word"
