"""Messages from one connection of a process of its own, no faster than they are taken in.

Must never wait for an answer to a message: only the broker's word counts, and the service's count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench.fleet.metrics import total
from bench.fleet.staging import Installation
from bench.fleet.thin_link import Will, open_link

WINDOW: Final = 2000
SETTLE_S: Final = 120.0

Messages = Callable[[int, int], Iterator[tuple[str, bytes]]]
"""So many messages from that number on: topic and payload. A module's own function."""


def publish(port: int, messages: Messages, first: int, count: int, *, retain: bool) -> int:
    """How many the broker has taken."""
    return asyncio.run(_publish(port, messages(first, count), retain=retain))


async def _publish(port: int, messages: Iterator[tuple[str, bytes]], *, retain: bool) -> int:
    link = await open_link(port, "flood", ["flood/nothing"], lambda *_: None, Will("flood", b""))
    for name, payload in messages:
        link.publish(name, payload, retain=retain)
        await link.drained(WINDOW)
    await link.drained(0)
    link.close()
    return link.acknowledged


def received(at: Installation) -> float:
    """How many messages the service has counted so far."""
    return total(at, "twin_messages_received_total")


def await_received(at: Installation, wanted: float) -> float:
    """What `received` says once it is as much, or after SETTLE_S."""
    end_s, found = time.monotonic() + SETTLE_S, received(at)
    while found < wanted and time.monotonic() < end_s:
        time.sleep(0.05)
        found = received(at)
    return found
