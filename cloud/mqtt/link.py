"""The service's link to the broker: paho on its own thread, deliveries into a bounded queue.

QoS 1, manual acknowledgement, persistent session, reconnection with jittered back-off. Must never
decide anything, and must never acknowledge a message by itself.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cloud.config import Mqtt
from cloud.errors import LinkError
from cloud.intake.interpretation import Delivery
from cloud.mqtt.hand_over import as_far_as_it_may_go, hand_over
from cloud.mqtt.outages import Outages
from cloud.mqtt.protocol import Inbox
from cloud.mqtt.session import Session, alone

log = logging.getLogger(__name__)

UNACKNOWLEDGED: Final = 200
"""Messages that the broker may have open with us; what bounds the queue for MQTT 5."""
LARGEST_PACKET_BYTES: Final = 1024 * 1024
FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 30.0


class MqttLink:
    """`start()` once; deliveries come into `inbox`; `connected` is called at each connection."""

    def __init__(
        self,
        config: Mqtt,
        inbox: Inbox,
        connected: Callable[[], None],
        jitter: random.Random,
        session: Session | None = None,
    ) -> None:
        """Raises LinkError when the TLS files cannot be used."""
        self._config = config
        self._as = session or alone(config)
        self._inbox = inbox
        self._connected = connected
        self._jitter = jitter
        self._lock = threading.Lock()
        self._connection = 0
        self._linked = False  # from the broker's CONNACK on: it sends its backlog at once
        self._ready = False  # from its SUBACK on
        self._outages = Outages(config.host, config.port)
        self._stopping = False
        self._waiting: dict[int, Callable[[], None]] = {}
        self._confirmed: set[int] = set()
        self._client = self._build_client()

    @property
    def is_connected(self) -> bool:
        """Whether the subscriptions of the present connection are granted."""
        return self._ready

    def start(self) -> None:
        """Connect in the background, for ever."""
        self._client.connect_async(
            self._config.host, self._config.port, self._config.keepalive_s, **self._session()
        )
        self._client.loop_start()

    def stop(self) -> None:
        """See the protocol."""
        self._stopping = True
        self._client.disconnect(properties=self._farewell())
        self._client.loop_stop()

    def publish(
        self, topic: str, payload: bytes, confirmed: Callable[[], None], *, retain: bool = False
    ) -> bool:
        """See the protocol."""
        if not (self._ready if retain else self._linked):
            return False
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        self._waiting[info.mid] = confirmed
        self._settle(info.mid)
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        """See the protocol."""
        if delivery.qos == 0:
            return
        with self._lock:
            if self._linked and delivery.connection == self._connection:
                self._client.ack(delivery.mid, delivery.qos)

    def _settle(self, mid: int) -> None:
        """Call back once both sides, publisher and network thread, have been here.

        `dict.pop` lets exactly one of them through.
        """
        if mid in self._confirmed and mid in self._waiting:
            confirmed = self._waiting.pop(mid, None)
            if confirmed is not None:
                self._confirmed.discard(mid)
                confirmed()

    def _session(self) -> dict[str, Any]:
        if self._config.protocol != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._as.expiry_s
        properties.ReceiveMaximum = UNACKNOWLEDGED
        properties.MaximumPacketSize = LARGEST_PACKET_BYTES
        return {"clean_start": False, "properties": properties}

    def leave(self) -> None:
        """See the protocol."""
        if self._as.leaves and self._linked:
            self._client.unsubscribe(list(self._as.filters))

    def _farewell(self) -> Properties | None:
        if self._config.protocol != "5" or not self._as.leaves:
            return None
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        return properties

    def _build_client(self) -> Client:
        v5 = self._config.protocol == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._as.client_id,
            clean_session=None if v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        _use_tls(client, self._config)
        client.max_inflight_messages = 100
        client.suppress_exceptions = True
        client.enable_logger(logging.getLogger("cloud.paho"))
        self._draw_delay(client)
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(
        self, client: Client, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if reason.is_failure:
            self._outages.explain(reason)
            return
        with self._lock:
            self._connection += 1
            self._linked = True
        if self._as.filters:
            client.subscribe([(name, 1) for name in self._as.filters])
        else:
            self._be_ready()

    def _on_subscribe(
        self, _c: Client, _d: object, _mid: int, reasons: list[ReasonCode], _p: object
    ) -> None:
        """Only now: paho has sent again what was open, so nothing newer can be overtaken."""
        if any(reason.is_failure for reason in reasons):
            self._outages.explain(
                f"it refuses the subscriptions ({[str(reason) for reason in reasons]})"
            )
            return
        self._be_ready()

    def _be_ready(self) -> None:
        with self._lock:
            self._ready = True
        self._outages.end()
        self._connected()

    def _on_disconnect(
        self, client: Client, _d: object, _f: object, reason: ReasonCode, _p: object
    ) -> None:
        with self._lock:
            was_ready, self._ready, self._linked = self._ready, False, False
        if was_ready and not self._stopping:
            self._outages.begin(reason)
            self._draw_delay(client)
        elif not self._stopping:
            self._outages.explain(f"it closed the connection before it answered ({reason})")

    def _on_connect_fail(self, _client: Client, _data: object) -> None:
        self._outages.explain(sys.exc_info()[1])

    def _draw_delay(self, client: Client) -> None:
        """paho doubles the delay; a random first one keeps services from returning in step."""
        first = self._jitter.uniform(0.5, 1.0) * FIRST_DELAY_S
        client.reconnect_delay_set(first, LONGEST_DELAY_S)  # type: ignore[arg-type]  # it only adds

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        """Blocks while the queue is full: TCP then holds the broker back."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "(a topic that is no UTF-8)"
        delivery = Delivery(
            topic=topic,
            payload=as_far_as_it_may_go(message.payload),
            retained=bool(message.retain),
            qos=message.qos,
            mid=message.mid,
            connection=self._connection,
        )
        hand_over(self._inbox, delivery, lambda: self._stopping)

    def _on_publish(self, _c: Client, _d: object, mid: int, reason: ReasonCode, _p: object) -> None:
        if reason.is_failure:
            log.error("publish_refused reason=%r", str(reason))
        self._confirmed.add(mid)
        self._settle(mid)


def _send_at_once(_client: Client, _data: object, connection: object) -> None:
    """Nagle's algorithm holds a small packet back until the one before is acknowledged: 40 ms."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _use_tls(client: Client, config: Mqtt) -> None:
    if config.tls is None:
        return
    files = (config.tls.ca_file, config.tls.cert_file, config.tls.key_file)
    try:
        client.tls_set(*files, cert_reqs=ssl.CERT_REQUIRED)
    except (OSError, ValueError) as error:
        named = ", ".join(file for file in files if file)
        raise LinkError(f"its TLS files cannot be used ({error}): {named}") from error
