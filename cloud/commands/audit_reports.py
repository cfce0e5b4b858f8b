"""What the command line shows of chains, signed heads, and of one revision's past.

Must never write to the database.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from sqlmodel import Session

from cloud.audit import (
    drawing,
    head_files,
    heads,
    prov,
    record,
    reproduction,
    verification,
)
from cloud.audit import lineage as descent
from cloud.audit.verification import Outcome
from cloud.audit.walk import NO_HEADS, Found, Heads
from cloud.bundles import load_catalogue
from cloud.commands.console import wide_console
from cloud.commands.reports import show
from cloud.config import load_config
from cloud.errors import HeadsError
from cloud.location import Location
from cloud.store import heads as kept
from cloud.store import revisions
from cloud.store.database import Reader
from cloud.store.verification import remembered_keys
from cloud.traces.archive import archive_of
from common.errors import ChainError
from common.signing import TrustedKeys, key_id, load_public_key


@dataclass(frozen=True)
class Wanted:
    """How `verify` shall verify; `heads` is where exported statements are."""

    public_keys: Sequence[Path]
    heads: str | None = None
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
        told = heads.fold(head_files.read_all(wanted.heads), trusted)
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


def audit(database: Location, vehicle_id: str, number: int, *, as_json: bool) -> bool:
    """Print what is known of a revision; False: there is none. Raises StoreError."""
    with closing(Reader(database)) as reader, reader.read() as db:
        row = revisions.by_number(db, vehicle_id, number)
        found = record.of_revision(db, row) if row is not None else None
    if found is None:
        return False
    document = found.model_dump(mode="json")
    if as_json:
        _print_json(document)
    else:
        rows = [{"what": name, "value": value} for name, value in _flat("", document)]
        show(rows, ["what", "value"], as_json=False)
    return True


def reproduce(config: Path, vehicle_id: str, number: int, *, as_json: bool) -> bool | None:
    """Print what differs; None: there is no such revision. Raises TwinError."""
    settings = load_config(config)
    catalogue = load_catalogue([settings.path(name) for name in settings.bundles.paths])
    with closing(Reader(settings.database())) as reader, reader.read() as db:
        row = revisions.by_number(db, vehicle_id, number)
        if row is None:
            return None
        found = reproduction.reproduce(db, catalogue, row, archive_of(settings))
    for warning in found.warnings:
        typer.echo(f"twin-cloud: {warning}", err=True)
    differences = [asdict(one) for one in found.differences]
    if as_json:
        own = {"vehicle_id": vehicle_id, "number": number, "kind": found.kind}
        told = {"same": found.same, "differences": differences, "warnings": found.warnings}
        _print_json(own | told)
    elif differences:
        show(differences, ["field", "stored", "computed"], as_json=False)
    else:
        typer.echo(f"Revision {number} of {vehicle_id} is the same to the last byte.")
    return found.same


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """One line for each number and word, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(f"{name}.{index}", inner)
    else:
        yield name, value


def _print_json(document: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    wide_console().out(text, highlight=False)


def lineage(database: Location, vehicle_id: str, form: str) -> bool:
    """Print a vehicle's lineage; False: it has no revision. Raises StoreError."""
    with closing(Reader(database)) as reader, reader.read() as db:
        nodes = descent.lineage(revisions.all_of(db, vehicle_id))
    if form == "prov":
        _print_json(prov.prov_json(vehicle_id, nodes))
    else:
        draw = drawing.svg if form == "svg" else prov.dot
        wide_console().out(draw(vehicle_id, nodes), highlight=False, end="")
    return bool(nodes)
