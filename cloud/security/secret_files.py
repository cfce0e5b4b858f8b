"""Secrets from files or from the environment, and files that others than their owner may read.

Must never log a secret, nor put one into an error.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloud.errors import SecretError

log = logging.getLogger(__name__)


def read_secret(file: Path | None, variable: str, environment: Mapping[str, str]) -> str:
    """The first line of `file`, else what `variable` holds. Raises SecretError."""
    if file is not None:
        warn_of_readable([file])
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(f"{file} cannot be read ({type(error).__name__})") from error
        if not lines or not lines[0]:
            raise SecretError(f"{file} is empty")
        return lines[0]
    if not environment.get(variable):
        raise SecretError(f"neither a file is named nor is {variable} set")
    return environment[variable]


def warn_of_readable(files: Iterable[Path]) -> list[Path]:
    """Log, and return, those that others may read; their group may (0640 is as it should be)."""
    found = [file for file in files if _is_readable_by_others(file)]
    for file in found:
        log.warning("secret_file_is_readable path=%s: chmod o-rwx,g-w it", file)
    return found


def _is_readable_by_others(file: Path) -> bool:
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116 - follows links, as opening does
    except OSError:
        return False  # whoever opens it says so
    return bool(mode & (stat.S_IRWXO | stat.S_IWGRP))
