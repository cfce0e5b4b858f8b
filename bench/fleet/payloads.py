"""Hostile payloads on every topic that the service listens to: it stays up, and counts each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from random import Random
from typing import Final

from bench.edge.fuzz.mutation import STRINGS, bytes_of, json_of
from bench.figures import Figure
from bench.fleet.metrics import total
from bench.fleet.scale import BACKENDS
from bench.fleet.staging import Backend, Installation, installation
from bench.fleet.thin_link import Will, open_link
from common.messages import (
    Acknowledgement,
    Breach,
    Status,
    Trace,
    TripSummary,
    encode,
    message_id,
)
from common.topics import UPWARD

MANY, FEW = 1_000_000, 5_000
AT_ONCE: Final = 20_000
"""A broker drops in silence what its queue does not hold: 100,000 messages here."""
WINDOW: Final = 2000
SEED: Final = 77
SETTLE_S: Final = 120.0
DIGEST: Final = "ab" * 32
VEHICLE: Final = "hostile"


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    count = FEW if quick else MANY
    return [_measured(backend, count) for backend in BACKENDS]


def _measured(backend: Backend, count: int) -> Figure:
    with installation(backend) as at:
        before = total(at, "twin_messages_received_total")
        sent = counted = 0
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            while sent < count and sent == counted:
                wanted = min(AT_ONCE, count - sent)
                sent += pool.submit(_publish_all, at.broker.port, sent, wanted).result()
                counted = _counted(at, before, sent)
    name = f"hostile payloads that are not counted, {backend}"
    note = f"{sent:,} published and taken by the broker, {counted:,} counted; the service answers"
    return Figure(name, sent - counted, "", 0, note=note)


def _counted(at: Installation, before: float, sent: int) -> int:
    """Waits until nothing more comes. Raises where the service no longer answers."""
    end_s, found = time.monotonic() + SETTLE_S, 0.0
    while found < sent and time.monotonic() < end_s:
        time.sleep(0.2)
        found = total(at, "twin_messages_received_total") - before
    return int(found)


def _publish_all(port: int, first: int, count: int) -> int:
    return asyncio.run(_publish(port, first, count))


async def _publish(port: int, first: int, count: int) -> int:
    will = Will("hostile/will", b"")
    link = await open_link(port, "hostile", ["hostile/nothing"], lambda *_: None, will)
    for name, payload in islice(_messages(SEED + first), count):
        link.publish(name, payload)
        await link.drained(WINDOW)
    await link.drained(0)
    link.close()
    return link.acknowledged


def _messages(seed: int) -> Iterator[tuple[str, bytes]]:
    random = Random(seed)  # noqa: S311  # to be repeated, not to be secret
    # The broker itself closes on control characters; wildcards stand in no topic name.
    names = [name for name in STRINGS if name.isprintable() and not set(name) & set("/+#")]
    while True:
        vehicle = random.choice([VEHICLE, VEHICLE, VEHICLE, random.choice(names)])
        yield f"twin/v1/{vehicle}/{random.choice(UPWARD)}", _payload(random)


def _payload(random: Random) -> bytes:
    seed = random.choice(_SEEDS)

    def plain(data: bytes) -> bytes:
        return bytes_of(data, random)

    match random.randrange(10):
        case 0:
            return random.randbytes(random.randrange(200))
        case 1 | 2:
            return plain(seed)
        case _:
            return json_of(seed, random, plain)


_MESSAGE: Final = message_id(VEHICLE, "t", "trip")
_TRACE: Final = Trace([0.0, 1.0, 2.0], [[0.0, 1.0, 2.0], 20.0, 4000.0], [4.0, 3.9, 3.8])
_SEEDS: Final = [
    encode(message)
    for message in (
        TripSummary(
            vehicle_id=VEHICLE,
            message_id=_MESSAGE,
            trip_id="t",
            bundle=DIGEST,
            revision=0,
            started_at=1.0,
            duration_s=1.0,
            odometer_start=0.0,
            odometer_end=1.0,
            samples=3,
            refused_samples=0,
            error_v=0.01,
            band95_v=0.01,
            coverage95=0.9,
            feature_means=[1.0, 2.0, 3.0],
            breach=False,
        ),
        Breach(
            vehicle_id=VEHICLE,
            message_id=_MESSAGE,
            trip_id="t",
            bundle=DIGEST,
            revision=0,
            odometer=1.0,
            error_v=0.1,
            threshold_v=0.05,
            trace=_TRACE,
        ),
        Status(
            vehicle_id=VEHICLE,
            online=True,
            agent_version="1",
            bundle=DIGEST,
            revision=0,
            sent_at=1.0,
        ),
        Acknowledgement(
            vehicle_id=VEHICLE,
            message_id=_MESSAGE,
            revision=1,
            revision_hash=DIGEST,
            verdict="applied",
            decided_at=1.0,
        ),
    )
]
