"""What the command line shows of chains, signed heads, and of one revision's past.

Must never write to the database.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress
from sqlmodel import Session

from cloud.audit import head_files, heads, verification
from cloud.audit.verification import Outcome
from cloud.audit.walk import NO_HEADS, Found, Heads
from cloud.commands.reports import show
from cloud.errors import HeadsError
from cloud.location import Location
from cloud.store import heads as kept
from cloud.store.database import Reader
from cloud.store.verification import remembered_keys
from common.errors import ChainError
from common.signing import TrustedKeys, key_id, load_public_key


@dataclass(frozen=True)
class Wanted:
    """How `verify` shall verify; `heads` is a folder of exported statements."""

    public_keys: Sequence[Path]
    heads: Path | None = None
    processes: int | None = None
    all_signatures: bool = False


def verify(database: Location, wanted: Wanted, *, as_json: bool) -> bool:
    """Print one line a vehicle; True when all holds.

    Raises StoreError, KeyFileError, HeadsError.
    """
    began = time.monotonic()
    given = [load_public_key(path) for path in wanted.public_keys]
    with closing(Reader(database)) as reader, reader.read() as db:
        trusted = {key_id(key): key for key in given} or remembered_keys(db)
        known = _heads(db, wanted, trusted)
    with _progress() as progress:
        outcome = verification.verify(
            partial(Reader, database),
            trusted,
            known,
            every_signature=wanted.all_signatures,
            processes=wanted.processes,
            progress=progress,
        )
    show(_rows(outcome), ["vehicle_id", "ok", "revisions", "head", "problem"], as_json=as_json)
    told = (
        f"{outcome.vehicles} vehicles, {len(outcome.broken)} broken; {outcome.revisions} revisions "
        f"hold; {len(known.newest)} heads from signed statements; "
        f"{time.monotonic() - began:.1f} s"
    )
    typer.echo(told, err=True)
    return not outcome.broken


def export_heads(database: Location, to: str) -> int:
    """How many statements are there now. Raises StoreError, HeadsError, HeadsExportError."""
    sink = head_files.sink_to(to)
    with closing(Reader(database)) as reader, reader.read() as db:
        statements = kept.all_statements(db)
    for number, signed in statements:
        sink(number, signed)
    return len(statements)


def _heads(db: Session, wanted: Wanted, trusted: TrustedKeys) -> Heads:
    """From the folder that is given, else from the newest statement of the database itself."""
    if wanted.heads is not None:
        told = heads.fold(head_files.read_folder(wanted.heads), trusted)
        if told.last is None:
            raise HeadsError(1, f"there is none in {wanted.heads}")
        return told.heads
    signed = kept.newest(db)
    if signed is None:
        return NO_HEADS
    if signed.key_id not in trusted:
        typer.echo(
            f"The newest statement of heads is signed by key {signed.key_id}, which is not "
            "trusted here: every signature is checked instead.",
            err=True,
        )
        return NO_HEADS
    return heads.newest(signed, kept.current(db), trusted)


@contextmanager
def _progress() -> Iterator[verification.Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("revisions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[Found] = [*outcome.broken, *outcome.holding]
    return [_row(one) for one in sorted(found, key=lambda one: one.vehicle_id)]


def _row(found: Found) -> dict[str, Any]:
    if isinstance(found, ChainError):
        return {
            "vehicle_id": found.vehicle_id,
            "ok": False,
            "first_broken_revision": found.number,
            "problem": str(found),
        }
    return {
        "vehicle_id": found.vehicle_id,
        "ok": True,
        "revisions": found.revisions,
        "head": found.head,
    }
