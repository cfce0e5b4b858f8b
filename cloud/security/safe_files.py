"""Files that are written whole or not at all, and private ones that are private from the start.

Must never write over a private key.
"""

from __future__ import annotations

import os
from pathlib import Path

from cloud.errors import AuthorityError


def write_new(path: Path, content: bytes, mode: int) -> None:
    """A file that was not there. Raises AuthorityError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise AuthorityError(f"{path} exists already and is not overwritten") from error
    except OSError as error:
        raise AuthorityError(f"{path} cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """The new content or the old one, whatever happens. Raises AuthorityError."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)
        write_new(fresh, content, mode)
        fresh.replace(path)
    except OSError as error:
        raise AuthorityError(f"{path} cannot be written ({error.strerror})") from error
