"""What the link reports, and the bounded queue between its thread and the agent's.

Must never lose an event that the agent needs: one that brings a message waits for room, so that TCP
holds the broker back; the others are few, and what a lost connection left of them is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.mqtt.broker_limits import AWS_IOT_CORE, BrokerLimits

MESSAGES = 64
"""Messages that wait for the agent; the next one is not read from the connection."""
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection, and the subscriptions were asked for."""

    limits: BrokerLimits = field(default=AWS_IOT_CORE, compare=False)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, and what was on its way with it; the link tries again by itself."""

    why: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message on one of the vehicle's downward topics."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker's PUBACK for a publish: its word alone; it paces, it frees nothing."""

    mid: int


Event = Connected | Disconnected | Received | Accepted


class EventQueue:
    """Any thread puts, one thread gets."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._messages = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Connected | Disconnected | Accepted) -> None:
        """Never waits: paho calls back with its locks held."""
        with self._changed:
            if isinstance(event, Disconnected):
                self._events = deque(e for e in self._events if isinstance(e, Received))
            self._events.append(event)
            self._changed.notify_all()

    def put_message(self, event: Received, is_over: Callable[[], bool]) -> None:
        """Wait for room; dropped only when `is_over` says that nobody will make any."""
        with self._changed:
            while self._messages >= MESSAGES:
                if is_over():
                    return
                self._changed.wait(LOOK_S)
            self._events.append(event)
            self._messages += 1
            self._changed.notify_all()

    def get(self, timeout_s: float) -> Event | None:
        """The next event, waiting at most `timeout_s`; None when there is none."""
        with self._changed:
            if not self._events and timeout_s > 0:
                self._changed.wait_for(lambda: bool(self._events), timeout_s)
            if not self._events:
                return None
            event = self._events.popleft()
            if isinstance(event, Received):
                self._messages -= 1
                self._changed.notify_all()
            return event
