"""One connection to the broker, from TCP to its end: a paho client that lives no longer than it.

So nothing is left in paho's memory when the line is cut: what was on its way is offered again from
the disk. Must never raise once it is being served: whatever happens is how it `Ended`.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.messages import MAX_PAYLOAD_BYTES
from common.topics import DOWNWARD, Kind, topic
from edge_agent.config import Mqtt
from edge_agent.mqtt.broker_limits import AWS_IOT_CORE, limits_of
from edge_agent.mqtt.link_events import Accepted, Connected, EventQueue, Received

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 30 * 24 * 3600
LARGEST_PACKET_BYTES = AWS_IOT_CORE.packet_bytes
RECEIVE_MAXIMUM = 20
"""Deliveries that the broker may have open with us (MQTT 5)."""
LOOP_S = 0.2
GOODBYE_S = 2.0
"""For the PUBACKs of what is on its way when the agent stops, and again for its last word."""
ANSWER_KEEPALIVES = 2
"""Without any PUBACK for so many keep-alives, while some are due, a connection is given up."""

CALLBACKS = ("on_log", "on_connect", "on_disconnect", "on_message", "on_publish")
UNSPOKEN = "Unspecified error"
"""What paho says of a connection that just ends."""
_NOT_LET_IN = {"not authorized", "bad user name or password", "banned", "bad authentication method"}
_OUR_CERTIFICATE = re.compile(
    r"ALERT_(BAD_CERTIFICATE|CERTIFICATE_|UNKNOWN_CA|ACCESS_DENIED|UNSUPPORTED_CERTIFICATE)"
    r"|ALERT_HANDSHAKE_FAILURE",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ended:
    """Why, how long the broker had accepted it before, and whether it does not want *us*."""

    why: str
    lasted_s: float
    refused: bool


class Connection:
    """`serve` it on a thread of its own; publish and close from any other."""

    def __init__(
        self,
        vehicle_id: str,
        config: Mqtt,
        will: bytes,
        tls: ssl.SSLContext | None,
        events: EventQueue,
    ) -> None:
        self.bytes_received = 0
        self._vehicle_id, self._config, self._events = vehicle_id, config, events
        self._address = f"the broker at {config.host}:{config.port}"
        self._accepted_at: float | None = None
        self._refusal = self._trouble = self._reason = ""
        self._is_closing = self._is_told = False
        self._handed = self._taken = 0  # publishes, and their PUBACKs
        self._progress_at = 0.0
        self._limits = AWS_IOT_CORE
        self._client = self._build_client(will, tls)

    def serve(self) -> Ended:
        """Connect, and live until the line is cut or somebody closes it."""
        if self._is_closing:
            return Ended("the agent stops", 0.0, refused=False)
        try:
            return self._open() or self._live()
        finally:
            self._hang_up()

    def publish(self, kind: Kind, payload: bytes, *, retain: bool) -> int | None:
        """Hand a message over at QoS 1; its number, or None: it is not on its way."""
        if self._accepted_at is None:
            return None
        if self._handed <= self._taken:
            self._progress_at = time.monotonic()
        name = topic(self._vehicle_id, kind)
        retain = retain and self._limits.retains
        info = self._client.publish(name, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return None
        self._handed += 1
        return info.mid

    def close(self) -> None:
        """Say goodbye cleanly: the broker sends no last will."""
        self._is_closing = True

    # ---- on the link's thread -------------------------------------------------------------------

    def _open(self) -> Ended | None:
        config = self._config
        try:
            self._client.connect(config.host, config.port, config.keepalive_s, **self._session())
        except Exception as error:  # noqa: BLE001 - paho lets more through than OSError
            refused = _OUR_CERTIFICATE.search(str(error)) is not None
            return Ended(f"{self._address} cannot be reached ({error})", 0.0, refused)
        return None

    def _live(self) -> Ended:
        try:
            self._turn_until_it_ends()
        except Exception as error:  # noqa: BLE001 - bytes that paho cannot read end it, not the link
            self._trouble = repr(error)
        return self._ended()

    def _turn_until_it_ends(self) -> None:
        while not self._is_closing:
            if self._client.loop(LOOP_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            if self._is_stuck():
                self._trouble = "it answers pings and no publish"
                return
        # A PUBACK that comes to a closed socket makes the broker forget what it has not read yet.
        if self._turn(GOODBYE_S, lambda: self._handed <= self._taken):
            self._client.disconnect()
            self._turn(GOODBYE_S, lambda: False)

    def _is_stuck(self) -> bool:
        """A publish that has lost its PUBACK on a living line would wait for ever."""
        silent_s = time.monotonic() - self._progress_at
        return (
            self._handed > self._taken and silent_s > ANSWER_KEEPALIVES * self._config.keepalive_s
        )

    def _turn(self, seconds: float, is_done: Callable[[], bool]) -> bool:
        """Until it is done or time is up; False when the connection has ended."""
        end_s = time.monotonic() + seconds
        while not is_done() and time.monotonic() < end_s:
            if self._client.loop(LOOP_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return False
        return True

    def _hang_up(self) -> None:
        """paho leaves its sockets open when something is thrown through it, and in a cycle."""
        open_socket = self._client.socket()
        if isinstance(open_socket, socket.socket):
            open_socket.close()
        for callback in CALLBACKS:
            setattr(self._client, callback, None)

    def _ended(self) -> Ended:
        if self._refusal:
            refused = self._refusal.lower() in _NOT_LET_IN
            return Ended(f"{self._address} refuses ({self._refusal})", 0.0, refused)
        cause = self._trouble or self._reason or "without a word"
        why = f"{self._address} closed the connection ({cause})"
        if self._accepted_at is None:
            return Ended(why, 0.0, _OUR_CERTIFICATE.search(self._trouble) is not None)
        return Ended(why, time.monotonic() - self._accepted_at, refused=False)

    def _session(self) -> dict[str, Any]:
        if self._config.protocol != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = LARGEST_PACKET_BYTES
        return {"clean_start": False, "properties": properties}

    def _build_client(self, will: bytes, tls: ssl.SSLContext | None) -> Client:
        v5 = self._config.protocol == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._vehicle_id,
            clean_session=None if v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.will_set(topic(self._vehicle_id, "status"), will, qos=1, retain=True)
        if tls is not None:
            client.tls_set_context(tls)
        client.max_inflight_messages = AWS_IOT_CORE.in_flight
        client.max_queued_messages = AWS_IOT_CORE.in_flight
        client.on_socket_open = _send_at_once
        client.on_socket_register_write = _leave_it_to_the_loop
        for callback in CALLBACKS:
            setattr(client, callback, getattr(self, f"_{callback}"))
        return client

    def _on_connect(self, client: Client, _d: Any, _f: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
            return
        limits = limits_of(properties)
        if not limits.takes_qos1:
            self._refusal = "it takes no QoS 1, and nothing less is safe"
            client.disconnect()
            return
        client.subscribe([(topic(self._vehicle_id, kind), 1) for kind in DOWNWARD])
        self._limits = limits
        self._accepted_at = time.monotonic()
        self._events.put(Connected(limits))

    def _on_disconnect(self, _c: Client, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        if str(reason) != UNSPOKEN:
            self._reason = str(reason)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        """Waits while the agent is behind: the broker then waits, too."""
        try:
            name = message.topic
        except UnicodeDecodeError:
            name = "(a topic that is no UTF-8)"
        payload = bytes(message.payload[: MAX_PAYLOAD_BYTES + 1])
        self.bytes_received += len(payload) + len(name)
        self._events.put_message(Received(name, payload), lambda: self._is_closing)

    def _on_publish(self, _c: Client, _d: Any, mid: int, reason: Any, _p: Any) -> None:
        if reason.is_failure and not self._is_told:
            told = "publish_refused vehicle=%s reason=%r: is it allowed to publish on its topics?"
            log.error(told, self._vehicle_id, str(reason))
            self._is_told = True
        self._taken += 1
        self._progress_at = time.monotonic()
        self._events.put(Accepted(mid))

    def _on_log(self, _client: Client, _data: Any, level: int, text: str) -> None:
        """The one place where paho says what the socket's error was."""
        if level == LogLevel.MQTT_LOG_ERR and text.startswith("failed to"):
            self._trouble = text


def _send_at_once(_client: Client, _data: object, connection: object) -> None:
    """Nagle's algorithm holds a small packet back until the one before is acknowledged: 40 ms."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _leave_it_to_the_loop(_client: Client, _data: object, _socket: object) -> None:
    """Without this callback paho writes from the thread that publishes, beside its own loop."""
