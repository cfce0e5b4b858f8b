"""What a vehicle's status costs: every connected vehicle sends one every five minutes.

Must never wait for an answer: a status has none.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from bench.figures import Figure
from bench.fleet.metrics import total
from bench.fleet.scale import BACKENDS
from bench.fleet.staging import Backend, Installation, installation
from bench.fleet.thin_link import Will, open_link
from bench.fleet.usage import usage
from common.messages import Status, encode
from common.topics import topic

VEHICLES: Final = 1000
MANY, FEW = 40_000, 4_000
WINDOW: Final = 2000
SETTLE_S: Final = 120.0
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
    before = total(at, "twin_messages_received_total")
    cpu_s = pool.submit(_publish_all, at.broker.port, count).result()
    end_s = time.monotonic() + SETTLE_S
    while total(at, "twin_messages_received_total") - before < count:
        if time.monotonic() > end_s:
            problem = f"not all of {count} statuses were counted within {SETTLE_S:g} s"
            raise TimeoutError(problem)
        time.sleep(0.05)
    return cpu_s


def _publish_all(port: int, count: int) -> float:
    began_s = time.process_time()
    asyncio.run(_publish(port, count))
    return time.process_time() - began_s


async def _publish(port: int, count: int) -> None:
    link = await open_link(port, "statuses", ["nothing"], lambda *_: None, Will("nothing", b""))
    for number in range(count):
        vehicle = f"car-{number % VEHICLES:05d}"
        link.publish(topic(vehicle, "status"), _status(vehicle, float(number)), retain=True)
        await link.drained(WINDOW)
    await link.drained(0)
    link.close()


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
