"""What the service asks of its link to the broker, whichever client carries it.

Must never name a client: ingest, worker and announcers know nothing but this.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Protocol

from cloud.intake.interpretation import Delivery

Inbox = queue.Queue[Delivery | None]


class Publisher(Protocol):
    """What ingest and worker need of the link."""

    def publish(
        self, topic: str, payload: bytes, confirmed: Callable[[], None], *, retain: bool = False
    ) -> bool:
        """Hand over a message at QoS 1; `confirmed` is called once the broker has it.

        False, and nothing is handed over, while there is no connection; a retained message waits
        for the subscriptions, too: the client first sends again what was open, and a newer revision
        must not be overtaken by an older one.
        """

    def acknowledge(self, delivery: Delivery) -> None:
        """Send the PUBACK of a delivery; nothing when its connection is gone."""


class Link(Publisher, Protocol):
    """`start()` once; deliveries come into the inbox; `connected` is called at each connection."""

    @property
    def is_connected(self) -> bool:
        """Whether the subscriptions of the present connection are granted."""

    def start(self) -> None:
        """Connect in the background, for ever."""

    def leave(self) -> None:
        """Take no new messages, where the session ends with the process: the others get them."""

    def stop(self) -> None:
        """Disconnect; unless it has left, the session stays with the broker."""
