"""How a process stands with the broker: under which name, for how long, and what it listens to.

Must never give two processes the same name: the broker would end one's connection for the other's.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from cloud.config import Mqtt
from cloud.mqtt.filters import filters

NEVER: Final = 0xFFFFFFFF
COMES_BACK_S: Final = 3600
"""A named instance comes back under its name and finds what the broker has kept for it."""
GONE_S: Final = 60
"""What the broker keeps for a process that may never come back, its vehicles offer again."""
GROUP: Final = "twin-cloud"


@dataclass(frozen=True)
class Session:
    """`leaves`: at its end the process gives up its session, and its share of a group with it."""

    client_id: str
    filters: tuple[str, ...]
    expiry_s: int = NEVER
    leaves: bool = False


def alone(config: Mqtt) -> Session:
    """Of the one process of a service."""
    return Session(config.client_id, tuple(filters(config.shared_group)))


def of_ingest(config: Mqtt, instance: str | None) -> Session:
    """Of one of several that divide the vehicles' messages among them."""
    name = f"{config.client_id}-{instance or _this_process()}"
    listens = tuple(filters(config.shared_group or GROUP))
    if instance:
        return Session(name, listens, COMES_BACK_S)
    return Session(name, listens, GONE_S, leaves=True)


def of_worker(config: Mqtt) -> Session:
    """Of a process that only publishes."""
    return Session(f"{config.client_id}-worker-{_this_process()}", (), 0)


def _this_process() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}"
