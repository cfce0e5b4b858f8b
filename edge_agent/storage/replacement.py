"""A new state file in place of one that is damaged, older, or another's, with what could be saved.

The new file is whole and on the disk before the old one is renamed; a power cut between the
renames is made good at the next start. Must never leave a log beside a database that is not its
own: SQLite would write it into it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edge_agent.storage.aside import (
    beside,
    files_aside,
    put_aside,
    remove_all,
    rename_all,
    sync_file,
)
from edge_agent.storage.salvage import Salvaged, salvage
from edge_agent.storage.state_schema import PAGE_BYTES, SCHEMA

log = logging.getLogger("edge_agent.storage.state")


def replace(path: Path, suffix: str, key: Mapping[str, str]) -> tuple[Path, Salvaged]:
    """Where the old file stands now, and what was saved of it.

    Raises sqlite3.Error or OSError, a full disk above all: then the old one is where it was.
    """
    new = beside(path, ".new")
    try:
        found = _build(new, path, key)
        sync_file(new)
        aside = put_aside(path, suffix)
    except (sqlite3.Error, OSError):
        _try_to_remove(new)
        raise
    new.rename(path)
    sync_file(path.parent)
    return aside, found


def finish_interrupted(path: Path) -> None:
    """After a power cut in `replace`: the new file if the old one is gone, else the old one.

    Raises OSError.
    """
    new = beside(path, ".new")
    if not new.exists():
        return
    if path.exists():
        remove_all(new)
        return
    stray = beside(path, "-wal")
    if stray.exists():
        rename_all(path, max(files_aside(path), key=lambda file: file.stat().st_ctime_ns))
    new.rename(path)
    log.warning("state_replacement_finished path=%s", path)


def _build(new: Path, source: Path, key: Mapping[str, str]) -> Salvaged:
    """Without a log and without a sync: `replace` syncs the whole of it, once."""
    remove_all(new)
    with closing(sqlite3.connect(new, isolation_level=None)) as target:
        target.execute(f"PRAGMA page_size={PAGE_BYTES}")
        target.execute("PRAGMA journal_mode=MEMORY")
        target.execute("PRAGMA synchronous=OFF")
        target.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        found = salvage(source, target, key)
        target.executemany("INSERT INTO identity VALUES (?, ?)", list(key.items()))
        return found


def _try_to_remove(new: Path) -> None:
    try:
        remove_all(new)
    except OSError as error:
        log.warning("unfinished_state_left path=%s error=%s", new, error)
