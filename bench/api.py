"""How fast the operator API answers over a large past: `python -m bench.api [--quick] [--json]`.

10,000 vehicles with 1,000,000 revisions, on SQLite and on PostgreSQL, asked over real HTTP by one
client that waits for each answer. Must never ask the same vehicle twice in a row.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console

from bench.api_world import World, served, world
from bench.figures import Figure, document, print_table
from cloud.location import PostgresUrl
from demo.database import DatabaseUnavailable, PrivatePostgres

V1 = "/api/v1"
REVISIONS = 100
ALL, QUICK = 10_000, 500
ASKED, ASKED_QUICK = 1000, 200
LONGEST_S = 30.0
"""So long a question is asked at most."""
LEAST_MS, AIM_MS = 50.0, 15.0

Ask = Callable[[int], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} vehicles")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--on", choices=("sqlite", "postgresql"), action="append")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for backend in options.on or ("sqlite", "postgresql"):
        figures += measure(backend, quick=options.quick)
    if options.json:
        print(json.dumps(document(figures), indent=2))
    else:
        print_table("The operator API", figures, Console(width=140))
    return 0


def measure(backend: str, *, quick: bool) -> list[Figure]:
    """Build the past on one backend, and ask."""
    vehicles = QUICK if quick else ALL
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twin-bench-")))
        database = None
        if backend == "postgresql":
            try:
                server = stack.enter_context(PrivatePostgres())
            except DatabaseUnavailable as error:
                print(f"no figures on PostgreSQL: {error}", file=sys.stderr)
                return []
            database = PostgresUrl(server.create("world"))
        print(f"building {vehicles} vehicles on {backend} …", file=sys.stderr)
        built = world(folder, vehicles, REVISIONS, database)
        service = stack.enter_context(served(built))
        headers = {"Authorization": f"Bearer {service.key}"}
        client = stack.enter_context(
            httpx.Client(base_url=service.url, headers=headers, timeout=60.0)
        )
        note = f"{backend}, {vehicles} vehicles, {vehicles * REVISIONS:,} revisions"
        asked = ASKED_QUICK if quick else ASKED
        figures = [Figure(f"built ({backend})", built.built_s, "s", note=note)]
        for name, ask, has_goal in questions(built, vehicles):
            figures += _timed(f"{name} ({backend})", client, ask, asked, has_goal=has_goal)
        return figures


def questions(built: World, vehicles: int) -> Iterator[tuple[str, Ask, bool]]:
    """What is asked: a name, an address for each number, and whether a goal was set for it."""
    car = f"{V1}/vehicles/car-{{:05d}}"

    def of(address: str) -> Ask:
        return lambda number: address.format(number * 7919 % vehicles)

    yield "a vehicle's last 100 revisions", of(f"{car}/revisions?limit=100"), True
    yield "fleet page of 100", _sorted, True
    history = f"{V1}/parameters/{built.parameter}?points=1000&vehicles=10&vehicle_id__startswith="
    yield "1,000 points of a parameter, 10 vehicles", lambda n: f"{history}car-00{n % 5}", True
    yield "its 100 points of one vehicle", of(f"{car}/parameters/{built.parameter}"), False
    yield "one vehicle", of(car), False
    yield "a vehicle's last 50 trips", of(f"{car}/trips"), False
    yield "fleet page of one state", lambda _: f"{V1}/vehicles?limit=100&state=known", False
    yield "the fleet's summary", lambda _: f"{V1}/summary", False


def _sorted(number: int) -> str:
    sorts = ("vehicle_id", "-drift", "soh", "-breaches", "-error", "-last_seen", "odometer")
    return f"{V1}/vehicles?limit=100&sort={sorts[number % len(sorts)]}"


def _timed(
    name: str, client: httpx.Client, ask: Ask, asked: int, *, has_goal: bool
) -> list[Figure]:
    for number in range(10):
        client.get(ask(number)).raise_for_status()
    times_ms = []
    size = 0
    end = time.perf_counter() + LONGEST_S
    for number in range(asked):
        if time.perf_counter() > end:
            break
        began = time.perf_counter()
        response = client.get(ask(number))
        times_ms.append((time.perf_counter() - began) * 1e3)
        response.raise_for_status()
        size = len(response.content)
    goals = (LEAST_MS, AIM_MS) if has_goal else (None, None)
    p50, p99 = np.percentile(times_ms, [50, 99])
    note = f"p99 of {len(times_ms):,}; p50 {p50:.1f} ms; {size:,} bytes"
    return [Figure(name, float(p99), "ms", goals[0], goals[1], note=note)]


if __name__ == "__main__":
    sys.exit(main())
