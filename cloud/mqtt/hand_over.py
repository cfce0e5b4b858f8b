"""From the client's thread into the inbox that ingest reads.

Must never drop a delivery, and never hold one that a stopping link can leave with the broker.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from cloud.intake.interpretation import Delivery
from cloud.mqtt.protocol import Inbox
from common.messages import MAX_PAYLOAD_BYTES

LOOK_S = 1.0


def as_far_as_it_may_go(payload: bytes | bytearray) -> bytes:
    """One byte more than a message may have is enough to refuse it."""
    return bytes(payload[: MAX_PAYLOAD_BYTES + 1])


def hand_over(inbox: Inbox, delivery: Delivery, is_stopping: Callable[[], bool]) -> None:
    """Block while the inbox is full: the client reads no further, and TCP holds the broker back."""
    while not is_stopping():
        try:
            return inbox.put(delivery, timeout=LOOK_S)
        except queue.Full:
            continue
    return None
