"""What a vehicle's status costs: every connected vehicle sends one every five minutes.

Must never wait for an answer: a status has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from bench.figures import Figure
from bench.fleet.flood import await_received, publish, received
from bench.fleet.scale import BACKENDS
from bench.fleet.staging import Backend, Installation, installation
from bench.fleet.usage import usage
from common.messages import Status, encode
from common.topics import topic

VEHICLES: Final = 1000
MANY, FEW = 40_000, 4_000
BUNDLE: Final = "ab" * 32


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    count = FEW if quick else MANY
    return [figure for backend in BACKENDS for figure in _measured(backend, count)]


def _measured(backend: Backend, count: int) -> list[Figure]:
    with (
        installation(backend) as at,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        _taken(at, pool, VEHICLES)  # vehicles that are known, as they mostly are
        before, began_s = usage(at.pids()), time.monotonic()
        cars_cpu_s = _taken(at, pool, count)
        seconds = time.monotonic() - began_s
        used = usage(at.pids()).since(before)
    note = f"{count:,} of {VEHICLES:,} vehicles; {used.told(cars_cpu_s)}"
    cost_us = 1e6 * sum(used.cpu_s.values()) / count
    return [
        Figure(f"statuses taken in, {backend}", count / seconds, "/s", note=note),
        Figure(f"cost of a status, {backend}", cost_us, "µs of CPU"),
    ]


def _taken(at: Installation, pool: ProcessPoolExecutor, count: int) -> float:
    """Processor time of who sent them, once all are counted. Raises TimeoutError."""
    wanted = received(at) + count
    cpu_s = pool.submit(_publish_all, at.broker.port, count).result()
    if await_received(at, wanted) < wanted:
        problem = f"not all of {count} statuses were counted"
        raise TimeoutError(problem)
    return cpu_s


def _publish_all(port: int, count: int) -> float:
    began_s = time.process_time()
    publish(port, _statuses, 0, count, retain=True)
    return time.process_time() - began_s


def _statuses(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(first, first + count):
        vehicle = f"car-{number % VEHICLES:05d}"
        yield topic(vehicle, "status"), _status(vehicle, float(number))


def _status(vehicle_id: str, sent_at: float) -> bytes:
    return encode(
        Status(
            vehicle_id=vehicle_id,
            online=True,
            agent_version="thin",
            bundle=BUNDLE,
            revision=0,
            sent_at=1.0 + sent_at,
        )
    )
