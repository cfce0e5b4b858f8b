"""A database with a fleet's past in it, and the operator API over it in a process of its own.

The rows have the sizes and the contents that the service gives them; only the numbers are made up
(no signature holds). Must never write through the service: a million calibrations take too long.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvicorn
from sqlalchemy import insert, text

from bench.fleet.staging import bundle
from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.api.gate import Entrance
from cloud.bundles import load_catalogue
from cloud.location import PostgresUrl
from cloud.roles.service import listen
from cloud.security import api_keys
from cloud.security.doors import Doors, KeyDoor
from cloud.security.settings import Limits
from cloud.store.database import Store
from cloud.store.tables import RevisionRow, Trip, Vehicle
from common.bundle import load_bundle
from common.manifest import Manifest
from common.messages import message_id
from common.revision import GENESIS, Cause, Revision, encode_revision, revision_hash

NOW: Final = 1_790_000_000.0
AT_ONCE: Final = 100
"""Vehicles in one transaction."""
KM: Final = 250.0
FREE: Final = Limits(1e6, 10**6, 1e6, 10**6, 10**6)


@dataclass(frozen=True)
class World:
    """What was built."""

    database: Path | PostgresUrl
    bundle: Path
    key: str
    built_s: float
    parameter: str


@dataclass(frozen=True)
class Service:
    """Where the API answers, and an admin's key."""

    url: str
    key: str


def world(
    folder: Path, vehicles: int, revisions: int, database: PostgresUrl | None = None
) -> World:
    """So many vehicles with so many revisions each, and as many trips up to fifty."""
    found = load_bundle(bundle())
    target = database or folder / "world.db"
    began = time.perf_counter()
    store = Store(target)
    rng = np.random.default_rng(1)
    for first in range(0, vehicles, AT_ONCE):
        ids = [f"car-{i:05d}" for i in range(first, min(first + AT_ONCE, vehicles))]
        with store.write() as db:
            connection = db.connection()
            connection.execute(
                insert(Vehicle), [_vehicle(one, found.sha256, revisions, rng) for one in ids]
            )
            connection.execute(
                insert(RevisionRow),
                [
                    row
                    for one in ids
                    for row in _chain(one, revisions, found.sha256, found.manifest, rng)
                ],
            )
            connection.execute(
                insert(Trip),
                [
                    _trip(one, number, found.sha256, found.manifest, rng)
                    for one in ids
                    for number in range(1, min(revisions, 50) + 1)
                ],
            )
    row, key = api_keys.make("bench", "admin", None, None, "bench", NOW, secrets.token_bytes)
    with store.write() as db:
        db.add(row)
        db.connection().execute(text("ANALYZE"))
    store.close()
    name = found.manifest.parameters[0].name
    return World(target, bundle(), key, time.perf_counter() - began, name)


def _vehicle(
    vehicle_id: str, sha256: str, revisions: int, rng: np.random.Generator
) -> dict[str, object]:
    odometer = revisions * KM
    return {
        "vehicle_id": vehicle_id,
        "first_seen_at": NOW - 1e7,
        "last_seen_at": NOW - float(rng.uniform(0, 1e6)),
        "bundle": sha256,
        "revision": revisions,
        "online": bool(rng.uniform() < 0.5),  # noqa: PLR2004  # a coin
        "trips": revisions * 7,
        "breaches": int(rng.integers(revisions, 2 * revisions)),
        "odometer": odometer + float(rng.uniform(0, KM)),
        "last_trip_error_v": float(rng.uniform(0.005, 0.05)),
        "last_trip_received_at": NOW - float(rng.uniform(0, 1e6)),
        "calibrations": revisions,
        "started": True,
        "estimate_state": "known",
        "cohort": f"cohort-{rng.integers(10)}",
        "soh": float(rng.uniform(0.7, 1.0)),
        "soh_std": 0.01,
        "drift": float(rng.uniform(0.0, 0.01)),
        "figures_revision": revisions,
        "relative_std": 0.2,
        "error_left": 0.5,
    }


def _chain(
    vehicle_id: str, revisions: int, sha256: str, manifest: Manifest, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Each behind the one before; the database would take no other."""
    parent = GENESIS
    for number in range(1, revisions + 1):
        row = _revision(vehicle_id, number, parent, sha256, manifest, rng)
        parent = row["hash"]
        yield row


def _revision(
    vehicle_id: str,
    number: int,
    parent: str,
    sha256: str,
    manifest: Manifest,
    rng: np.random.Generator,
) -> dict[str, Any]:
    count = len(manifest.parameters)
    cause = Cause(
        kind="breach",
        message_id=message_id(vehicle_id, f"t{number}", "breach"),
        trip_id=f"t{number}",
        points=50,
        nis=48.5,
        error_before_v=0.06,
        error_after_v=0.012,
    )
    triangle = np.eye(2 * count)[np.triu_indices(2 * count)] * rng.uniform(1e-6, 1e-4)
    content = encode_revision(
        Revision(
            vehicle_id=vehicle_id,
            number=number,
            parent_hash=parent,
            base=number - 1,
            bundle=sha256,
            odometer=number * KM,
            theta=[p.nominal + float(rng.normal()) * p.prior_std for p in manifest.parameters],
            rate=[0.0] * count,
            covariance=triangle.tolist(),
            cause=cause,
            created_at=NOW - 1e7 + number * 1e5,
            code_version="0.1.0",
        )
    )
    return {
        "vehicle_id": vehicle_id,
        "number": number,
        "bundle": sha256,
        "odometer": number * KM,
        "cause_message_id": cause.message_id,
        "content": content,
        "hash": revision_hash(content),
        "parent_hash": parent,
        "key_id": "ab" * 8,
        "signature": rng.bytes(64).hex(),
        "created_at": NOW - 1e7 + number * 1e5,
        "published_at": NOW - 1e7 + number * 1e5 + 1,
        "verdict": "applied",
        "verdict_at": NOW - 1e7 + number * 1e5 + 2,
        "trace_error_before_v": 0.06,
        "trace_error_after_v": 0.012,
        "kind": "breach",
    }


def _trip(
    vehicle_id: str, number: int, sha256: str, manifest: Manifest, rng: np.random.Generator
) -> dict[str, object]:
    return {
        "vehicle_id": vehicle_id,
        "message_id": message_id(vehicle_id, f"t{number}", "trip"),
        "trip_id": f"t{number}",
        "bundle": sha256,
        "revision": number,
        "started_at": NOW - 1e7 + number * 1e5,
        "duration_s": 9000.0,
        "odometer_start": number * KM,
        "odometer_end": number * KM + 200.0,
        "samples": 1000,
        "refused_samples": 0,
        "error_v": float(rng.uniform(0.005, 0.05)),
        "band95_v": 0.03,
        "coverage95": 0.95,
        "feature_means": b"[" + b",".join([b"1.0"] * len(manifest.features)) + b"]",
        "breach": False,
        "partial": False,
        "received_at": NOW - 1e7 + number * 1e5 + 9000.0,
    }


@contextmanager
def served(built: World) -> Iterator[Service]:
    """The API over a world, until it is left."""
    spawning = get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(built, theirs), daemon=True)
    process.start()
    try:
        port: int = ours.recv()
        yield Service(f"http://127.0.0.1:{port}", built.key)
    finally:
        process.terminate()
        process.join()


def _serve(built: World, told: Connection) -> None:
    store = Store(built.database)
    doors = Doors(KeyDoor(store, lambda: NOW), None, lambda: NOW)
    context = Context(
        store, load_catalogue([built.bundle]), lambda: NOW, {}, entrance=Entrance(doors, FREE)
    )
    app = create_app(context)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    listener = listen("127.0.0.1", 0)
    told.send(listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])
