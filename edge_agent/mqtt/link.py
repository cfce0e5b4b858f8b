"""The MQTT link of one vehicle: connections one after the other, on a thread of their own.

QoS 1, persistent session, last will, back-off with jitter; events to a queue, publishes from
anywhere. Must never decide anything: what an event means is the runtime's business.
"""

from __future__ import annotations

import logging
import random
import threading

from common.topics import Kind, topic
from edge_agent.config import Mqtt
from edge_agent.mqtt.backoff import DELAYS, Backoff, Delays
from edge_agent.mqtt.connection import Connection, Ended
from edge_agent.mqtt.link_events import (
    Accepted,
    Connected,
    Disconnected,
    Event,
    EventQueue,
    Received,
)
from edge_agent.mqtt.tls import ContextSource

__all__ = ["Accepted", "Connected", "Disconnected", "Event", "MqttLink", "Received"]

log = logging.getLogger(__name__)

STOP_S = 15.0
"""A name server that does not answer must not keep the agent from stopping."""


class MqttLink:
    """`start()` once; take events from `next_event`."""

    def __init__(
        self,
        vehicle_id: str,
        config: Mqtt,
        will: bytes,
        jitter: random.Random,
        delays: Delays = DELAYS,
    ) -> None:
        """Raises LinkError when the TLS files cannot be used."""
        self.bytes_sent = 0
        self._bytes_received = 0
        self._vehicle_id, self._config, self._will = vehicle_id, config, will
        self._tls = ContextSource(config)
        self._backoff = Backoff(jitter, delays)
        self._events = EventQueue()
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    @property
    def bytes_received(self) -> int:
        """Payloads and topics of what came, since the start."""
        connection = self._connection
        return self._bytes_received + (connection.bytes_received if connection else 0)

    def start(self) -> None:
        """Connect, and go on trying until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye cleanly: the broker sends no last will."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.close()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def publish(self, kind: Kind, payload: bytes, *, retain: bool = False) -> int | None:
        """Hand a message over at QoS 1; its number, or None while there is no connection.

        Nothing is kept for later: a message that must arrive is on disk, and offered again.
        """
        connection = self._connection
        mid = connection.publish(kind, payload, retain=retain) if connection else None
        if mid is not None:
            self.bytes_sent += len(payload) + len(topic(self._vehicle_id, kind))
        return mid

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, waiting at most `timeout_s`; None when there is none."""
        return self._events.get(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            ended = self._connect_once()
            self._events.put(Disconnected(ended.why))
            delay_s = self._backoff.next_delay_s(ended.lasted_s, refused=ended.refused)
            self._stopping.wait(delay_s)

    def _connect_once(self) -> Ended:
        try:
            tls = self._tls.current()
            connection = Connection(self._vehicle_id, self._config, self._will, tls, self._events)
        except Exception as error:  # the thread must outlive whatever this is
            log.exception("connection_not_made")
            return Ended(f"no connection can be made ({error})", 0.0, refused=False)
        self._connection = connection
        if self._stopping.is_set():
            connection.close()
        ended = connection.serve()
        self._connection = None
        self._bytes_received += connection.bytes_received
        return ended
