"""Files that could not be gone on with, renamed out of the way for a person to look at.

Must never delete what was not renamed before; of each kind the newest KEPT_ASIDE stay.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger("edge_agent.storage.state")

KEPT_ASIDE: Final = 3
ENDINGS: Final = ("", "-wal", "-shm")


def beside(path: Path, ending: str) -> Path:
    """`state.db` and `-wal`: `state.db-wal`."""
    return path.with_name(path.name + ending)


def put_aside(path: Path, suffix: str) -> Path:
    """Rename the database, its log and its index, under the next number. Raises OSError.

    The database goes first: while it is not there, the rest can be told from a whole state.
    """
    number = 1 + max(_numbers(path, suffix), default=0)
    aside = beside(path, f".{suffix}-{number}")
    rename_all(path, aside)
    _forget_oldest(path, suffix)
    return aside


def rename_all(path: Path, to: Path) -> None:
    """Database, log and index, as far as they are there. Raises OSError."""
    for ending in ENDINGS:
        part = beside(path, ending)
        if part.exists():
            part.rename(beside(to, ending))


def remove_all(path: Path) -> None:
    """Delete database, log and index, as far as they are there. Raises OSError."""
    for ending in ENDINGS:
        beside(path, ending).unlink(missing_ok=True)


def files_aside(path: Path) -> list[Path]:
    """What stands aside now, of every kind."""
    return sorted(
        beside(path, f".{suffix}-{number}")
        for suffix in ("damaged", "other", "older")
        for number in _numbers(path, suffix)
    )


def sync_file(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk. Raises OSError."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _numbers(path: Path, suffix: str) -> list[int]:
    prefix = f"{path.name}.{suffix}-"
    tails = (found.name.removeprefix(prefix) for found in path.parent.glob(f"{prefix}*"))
    return sorted(int(tail) for tail in tails if tail.isdigit())


def _forget_oldest(path: Path, suffix: str) -> None:
    for number in _numbers(path, suffix)[:-KEPT_ASIDE]:
        remove_all(beside(path, f".{suffix}-{number}"))
        log.warning("set_aside_forgotten path=%s number=%d", path, number)
