"""Hostile payloads on every topic that the service listens to: it stays up, and counts each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random
from typing import Final

from bench.edge.fuzz.mutation import STRINGS, bytes_of, json_of
from bench.figures import Figure
from bench.fleet.flood import await_received, publish, received
from bench.fleet.scale import BACKENDS
from bench.fleet.staging import Backend, installation
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
SEED: Final = 77
DIGEST: Final = "ab" * 32
VEHICLE: Final = "hostile"


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    count = FEW if quick else MANY
    return [_measured(backend, count) for backend in BACKENDS]


def _measured(backend: Backend, count: int) -> Figure:
    with installation(backend) as at:
        before = received(at)
        sent = counted = 0
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            while sent < count and sent == counted:
                wanted = min(AT_ONCE, count - sent)
                flood = (at.broker.port, _messages, sent, wanted)
                sent += pool.submit(publish, *flood, retain=False).result()
                counted = int(await_received(at, before + sent) - before)
    name = f"hostile payloads that are not counted, {backend}"
    note = f"{sent:,} published and taken by the broker, {counted:,} counted; the service answers"
    return Figure(name, sent - counted, "", 0, note=note)


def _messages(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    random = Random(SEED + first)  # noqa: S311  # to be repeated, not to be secret
    # The broker itself closes on control characters; wildcards stand in no topic name.
    names = [name for name in STRINGS if name.isprintable() and not set(name) & set("/+#")]
    for _ in range(count):
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
