"""One agent on one state file, until its process dies. Must never wait for another."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from edge_agent.errors import StateInUseError, StateUnusableError
from edge_agent.storage.aside import beside

REMEDY = "Make its folder a folder, or give another path."


def locked(path: Path) -> IO[str] | None:
    """An advisory lock that the kernel lets go when the process dies, however it dies.

    None where the disk refuses the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = beside(path, ".lock").open("w")
    except (NotADirectoryError, FileExistsError) as error:
        raise StateUnusableError(path, str(error), REMEDY) from error
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StateInUseError(path) from error
    return lock
