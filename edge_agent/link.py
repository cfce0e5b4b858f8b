"""The MQTT link of one vehicle: paho on its own thread, events to a queue, publishes from anywhere.

QoS 1, persistent session, last will, reconnection with jittered back-off. Must never decide
anything: what an event means is the runtime's business.
"""

from __future__ import annotations

import queue
import random
import ssl
import sys
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.topics import DOWNWARD, Kind, topic
from edge_agent.config import Mqtt
from edge_agent.errors import LinkError

SESSION_EXPIRY_S = 30 * 24 * 3600
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 60.0


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection, and the subscriptions were asked for."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; the link tries again by itself."""

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


class MqttLink:
    """`start()` once; take events from `next_event`."""

    def __init__(self, vehicle_id: str, config: Mqtt, will: bytes, jitter: random.Random) -> None:
        """Raises LinkError when the TLS files cannot be used."""
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.bytes_sent = 0
        self.bytes_received = 0
        self._vehicle_id = vehicle_id
        self._config = config
        self._address = f"the broker at {config.host}:{config.port}"
        self._jitter = jitter
        self._client = self._build_client(will)

    def start(self) -> None:
        """Connect, and go on trying until `stop`."""
        self._client.connect_async(
            self._config.host, self._config.port, self._config.keepalive_s, **self._session()
        )
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye cleanly: the broker sends no last will."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, kind: Kind, payload: bytes, *, retain: bool = False) -> int:
        """Hand a message to paho at QoS 1; its number. Cut off, paho sends it when back."""
        name = topic(self._vehicle_id, kind)
        self.bytes_sent += len(payload) + len(name)
        return self._client.publish(name, payload, qos=1, retain=retain).mid

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, waiting at most `timeout_s`; None when there is none."""
        try:
            return self._events.get(block=timeout_s > 0, timeout=timeout_s)
        except queue.Empty:
            return None

    def _session(self) -> dict[str, Any]:
        if self._config.protocol != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        return {"clean_start": False, "properties": properties}

    def _build_client(self, will: bytes) -> Client:
        v5 = self._config.protocol == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._vehicle_id,
            clean_session=None if v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        )
        client.will_set(topic(self._vehicle_id, "status"), will, qos=1, retain=True)
        _use_tls(client, self._config)
        self._draw_delay(client)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._events.put(Disconnected(f"{self._address} refuses ({reason})"))
            return
        self._draw_delay(client)  # only now: a broker that refuses must see the delay grow
        client.subscribe([(topic(self._vehicle_id, kind), 1) for kind in DOWNWARD])
        self._events.put(Connected())

    def _on_disconnect(self, _client: Client, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._events.put(Disconnected(f"{self._address} closed the connection ({reason})"))

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        self._events.put(Disconnected(f"{self._address} cannot be reached ({sys.exc_info()[1]})"))

    def _draw_delay(self, client: Client) -> None:
        """paho doubles the delay; a random first one keeps a fleet from returning in step."""
        first_s: Any = self._jitter.uniform(0.5, 1.0) * FIRST_DELAY_S  # paho types it as int
        longest_s: Any = LONGEST_DELAY_S
        client.reconnect_delay_set(first_s, longest_s)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.bytes_received += len(message.payload) + len(message.topic)
        self._events.put(Received(message.topic, bytes(message.payload)))

    def _on_publish(self, _c: Client, _d: Any, mid: int, _reason: Any, _p: Any) -> None:
        self._events.put(Accepted(mid))


def _use_tls(client: Client, config: Mqtt) -> None:
    if config.tls is None:
        return
    files = (config.tls.ca_file, config.tls.cert_file, config.tls.key_file)
    try:
        client.tls_set(*files, cert_reqs=ssl.CERT_REQUIRED)
    except (OSError, ValueError) as error:
        raise LinkError(files, error) from error
