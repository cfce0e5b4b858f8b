"""Time to verify every chain of a database: `python -m bench.verification [--quick] [--json]`.

The revisions are as the service makes them (two parameters, signed, each caused by a breach of its
own), so are the signed heads; only their numbers are made up. `--database sqlite` or `postgresql`
measures on one of them; both are the default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from sqlalchemy import insert

from bench.figures import Figure, document, print_table
from cloud.audit import heads, verification
from cloud.audit.inputs import Inputs
from cloud.audit.walk import NO_HEADS, Checkpoint, Heads
from cloud.calibration.revising import Author, signed_row
from cloud.location import Location, PostgresUrl
from cloud.store import heads as kept
from cloud.store.database import Reader, Store
from cloud.store.tables import Breach, RevisionRow
from common.messages import message_id
from common.revision import GENESIS, Cause, Revision
from common.signing import key_id
from demo.database import DatabaseUnavailable, PrivatePostgres

BACKENDS = ("sqlite", "postgresql")
PER_VEHICLE = 100
ALL, QUICK = 1_000_000, 50_000
AT_ONCE = 50
"""Vehicles in one transaction."""
AUTHOR = Author(Ed25519PrivateKey.from_private_bytes(b"b" * 32), "bench")
BUNDLE = "5a" * 32
NOW = 1_790_000_000.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.verification", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} revisions")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--database", choices=BACKENDS, help="[default: both]")
    wanted = parser.parse_args(arguments)
    revisions = QUICK if wanted.quick else ALL
    figures: list[Figure] = []
    for backend in [wanted.database] if wanted.database else BACKENDS:
        figures += on(backend, revisions)
    figures.append(Figure("processors", os.cpu_count() or 1, ""))
    if wanted.json:
        sys.stdout.write(json.dumps(document(figures), indent=2) + "\n")
    else:
        print_table("Verification", figures, Console(width=160))
    return 0


def on(backend: str, revisions: int) -> list[Figure]:
    """Measure on a private database of that kind; nothing where there is none."""
    with ExitStack() as stack:
        location: Location
        if backend == "sqlite":
            location = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bench.db"
        else:
            try:
                server = stack.enter_context(PrivatePostgres())
            except DatabaseUnavailable as error:
                print(f"no figures on PostgreSQL: {error}", file=sys.stderr)
                return []
            location = PostgresUrl(server.create("bench"))
        return measure(backend, location, revisions)


def measure(backend: str, location: Location, revisions: int) -> list[Figure]:
    """Build a database and verify it, with and without signed heads."""
    began = time.perf_counter()
    built = build(location, revisions // PER_VEHICLE)
    took_s = time.perf_counter() - began
    public = AUTHOR.key.public_key()
    run = partial(verification.verify, partial(Reader, location), {key_id(public): public})

    def timed(name: str, goals: tuple[float | None, float | None], walk: Any) -> Figure:
        return _timed(f"{name} ({backend})", walk, revisions, *goals)

    return [
        Figure(f"built ({backend})", took_s, "s"),
        timed("hashes, heads signed", (60.0, 10.0), partial(run, built)),
        timed("the same, one process", (None, None), partial(run, built, processes=1)),
        timed("every signature", (60.0, None), partial(run, NO_HEADS)),
    ]


def _timed(
    name: str, run: Any, revisions: int, least: float | None = None, aim: float | None = None
) -> Figure:
    """Goals are for a million revisions; fewer are told for information."""
    began = time.perf_counter()
    outcome = run()
    took_s = time.perf_counter() - began
    if outcome.broken or outcome.revisions != revisions:
        raise RuntimeError(f"{name}: {outcome.revisions} of {revisions} hold")
    note = f"{revisions} revisions, {took_s / revisions * 1e6:.1f} us each"
    if revisions != ALL:
        least = aim = None
    return Figure(name, took_s, "s", least, aim, note=note)


def build(location: Location, vehicles: int) -> Heads:
    """A database with its signed heads, which are the result."""
    store = Store(location)
    newest: dict[str, Checkpoint] = {}
    names = [f"car-{number:06d}" for number in range(vehicles)]
    groups = [names[i : i + AT_ONCE] for i in range(0, vehicles, AT_ONCE)]
    with closing(store), ProcessPoolExecutor() as pool:
        for made, breaches in pool.map(_group, groups):
            with store.write() as db:
                db.connection().execute(insert(RevisionRow), made)
                db.connection().execute(insert(Breach), breaches)
            newest |= {row["vehicle_id"]: Checkpoint(row["number"], row["hash"]) for row in made}
        signed = heads.make(None, newest, newest, AUTHOR.key, NOW, "bench")
        with store.write() as db:
            kept.add(db, 1, signed, newest, NOW)
    return Heads(newest)


def _group(names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = [row.model_dump(exclude={"id"}) for name in names for row in _chain(name)]
    return rows, [_breach(row) for row in rows]


def _chain(vehicle_id: str) -> Iterator[RevisionRow]:
    parent = GENESIS
    for number in range(1, PER_VEHICLE + 1):
        row = signed_row(_revision(vehicle_id, number, parent), AUTHOR, Inputs())
        parent = row.hash
        yield row


def _revision(vehicle_id: str, number: int, parent: str) -> Revision:
    share = 1.0 / (number + 7.0)
    return Revision(
        vehicle_id=vehicle_id,
        number=number,
        parent_hash=parent,
        base=number - 1,
        bundle=BUNDLE,
        odometer=1000.0 * number + share,
        theta=[1.0 + share, share],
        rate=[share * 1e-6, 0.0],
        covariance=[share * 10.0 ** -(3 + i) for i in range(10)],
        cause=Cause(
            kind="breach",
            message_id=message_id(vehicle_id, f"trip{number}", "breach"),
            trip_id=f"trip{number}",
            points=50,
            nis=50.0 + share,
            error_before_v=0.05 + share,
            error_after_v=0.01 + share,
        ),
        created_at=NOW + number,
        code_version="bench",
    )


def _breach(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "vehicle_id": row["vehicle_id"],
        "message_id": row["cause_message_id"],
        "trip_id": f"trip{row['number']}",
        "bundle": BUNDLE,
        "revision": row["number"] - 1,
        "odometer": row["odometer"],
        "error_v": 0.05,
        "threshold_v": 0.03,
        "trace": b"{}",
        "received_at": NOW,
        "state": "calibrated",
    }


if __name__ == "__main__":
    sys.exit(main())
