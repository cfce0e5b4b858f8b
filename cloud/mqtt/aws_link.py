"""The service's link by AWS's own client, over mutual TLS or a signed WebSocket; MQTT 5 only.

It keeps to AWS IoT Core's limits of a connection when told to, and leaves reconnecting, resending
and pacing to the client. Must never decide anything, and must never acknowledge a message by
itself: the client hands over the control of each PUBACK, and `acknowledge` is what uses it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Final

from awscrt import mqtt5
from awscrt.exceptions import AwsCrtError

from cloud.config import Mqtt
from cloud.intake.interpretation import Delivery
from cloud.mqtt.aws_client import Callbacks, build_client
from cloud.mqtt.hand_over import as_far_as_it_may_go, hand_over
from cloud.mqtt.outages import Outages
from cloud.mqtt.protocol import Inbox
from cloud.mqtt.session import Session, alone

log = logging.getLogger(__name__)

SUBSCRIPTIONS_A_CALL: Final = 8
FIRST_FAILURE: Final = 128
LONGEST_STOP_S: Final = 10.0
LONGEST_FLUSH_S: Final = 2.0
NOTHING: Final = "twin/v1/nothing"
"""A filter of the service's own that it never subscribes to."""


class AwsLink:
    """See `protocol.Link`."""

    def __init__(
        self,
        config: Mqtt,
        inbox: Inbox,
        connected: Callable[[], None],
        session: Session | None = None,
    ) -> None:
        """Raises LinkError when the TLS files cannot be used."""
        self._inbox, self._connected = inbox, connected
        self._lock = threading.Lock()
        self._connection = 0
        self._linked = False  # from the broker's CONNACK on: it sends its backlog at once
        self._ungranted = 0  # subscriptions of this connection that have no SUBACK yet
        self._ready = False
        self._last_mid = 0
        self._open: dict[int, mqtt5.PublishAcknowledgementControlHandle] = {}
        self._outages = Outages(config.host, config.port)
        self._stopping = False
        self._stopped = threading.Event()
        self._as = session or alone(config)
        self._filters = self._as.filters
        self._client = build_client(
            config,
            Callbacks(
                published=self._on_message,
                connected=self._on_connect,
                refused=self._on_refusal,
                disconnected=self._on_disconnect,
                stopped=lambda _: self._stopped.set(),
            ),
            self._as,
        )

    @property
    def is_connected(self) -> bool:
        """See the protocol."""
        return self._ready

    def start(self) -> None:
        """See the protocol."""
        self._client.start()

    def leave(self) -> None:
        """See the protocol."""
        if self._as.leaves and self._linked:
            for start in range(0, len(self._filters), SUBSCRIPTIONS_A_CALL):
                some = self._filters[start : start + SUBSCRIPTIONS_A_CALL]
                self._client.unsubscribe(mqtt5.UnsubscribePacket(list(some)))

    def stop(self) -> None:
        """See the protocol."""
        self._stopping = True
        if self._linked:
            self._flush()
        expiry_s = 0 if self._as.leaves else None
        self._client.stop(mqtt5.DisconnectPacket(session_expiry_interval_sec=expiry_s))
        self._stopped.wait(LONGEST_STOP_S)

    def publish(
        self, topic: str, payload: bytes, confirmed: Callable[[], None], *, retain: bool = False
    ) -> bool:
        """See the protocol."""
        if not (self._ready if retain else self._linked):
            return False
        packet = mqtt5.PublishPacket(
            topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain
        )
        try:
            sent = self._client.publish(packet)
        except (AwsCrtError, RuntimeError) as error:
            self._refused(error, confirmed)
        else:
            sent.add_done_callback(partial(self._settle, confirmed))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        """See the protocol."""
        with self._lock:
            control = self._open.pop(delivery.mid, None)
            if control is not None:
                self._client.invoke_publish_acknowledgement(control)

    def _flush(self) -> None:
        """A stopping client sends nothing more: await an answer that comes behind the PUBACKs."""
        asked = self._client.unsubscribe(mqtt5.UnsubscribePacket([NOTHING]))
        wait([asked], LONGEST_FLUSH_S)

    def _settle(
        self, confirmed: Callable[[], None], sent: Future[mqtt5.PublishCompletionData]
    ) -> None:
        error = sent.exception()
        if error is not None:
            self._refused(error, confirmed)
            return
        reason = sent.result().puback.reason_code
        if reason is not None and reason >= FIRST_FAILURE:
            log.error("publish_refused reason=%r", reason.name)
        confirmed()

    def _refused(self, error: BaseException, confirmed: Callable[[], None]) -> None:
        """The client keeps messages over a lost connection: what it gives back can never go."""
        if not self._stopping:
            log.error("publish_refused reason=%r", str(error))
            confirmed()

    def _on_connect(self, _data: mqtt5.LifecycleConnectSuccessData) -> None:
        with self._lock:
            self._connection += 1
            self._linked = True
            self._ungranted = len(self._filters)
            self._ready = not self._filters
        if self._ready:
            self._tell_ready()
        for start in range(0, len(self._filters), SUBSCRIPTIONS_A_CALL):
            self._subscribe(self._filters[start : start + SUBSCRIPTIONS_A_CALL], self._connection)

    def _subscribe(self, filters: Sequence[str], connection: int) -> None:
        wished = [mqtt5.Subscription(name, mqtt5.QoS.AT_LEAST_ONCE) for name in filters]
        asked = self._client.subscribe(mqtt5.SubscribePacket(wished))
        asked.add_done_callback(partial(self._on_subscribe, connection))

    def _on_subscribe(self, connection: int, asked: Future[mqtt5.SubackPacket]) -> None:
        if connection != self._connection or asked.exception() is not None:
            return  # the connection has gone; the next one asks again
        reasons = asked.result().reason_codes
        if any(reason is None or reason >= FIRST_FAILURE for reason in reasons):
            named = [reason.name if reason else "unknown" for reason in reasons]
            self._outages.explain(f"it refuses the subscriptions ({named})")
            return
        with self._lock:
            self._ungranted -= len(reasons)
            self._ready = self._linked and self._ungranted == 0
        if self._ready:
            self._tell_ready()

    def _tell_ready(self) -> None:
        self._outages.end()
        self._connected()

    def _on_disconnect(self, data: mqtt5.LifecycleDisconnectData) -> None:
        with self._lock:
            was_ready, self._ready, self._linked = self._ready, False, False
            self._open.clear()
        if was_ready and not self._stopping:
            self._outages.begin(_reason(data.disconnect_packet, data.exception))
        elif not self._stopping:
            why = _reason(data.disconnect_packet, data.exception)
            self._outages.explain(f"it closed the connection before it answered ({why})")

    def _on_refusal(self, data: mqtt5.LifecycleConnectFailureData) -> None:
        if not self._stopping:
            self._outages.explain(_reason(data.connack_packet, data.exception))

    def _on_message(self, data: mqtt5.PublishReceivedData) -> None:
        packet = data.publish_packet
        with self._lock:
            self._last_mid += 1
            mid, connection = self._last_mid, self._connection
            if data.acquire_publish_acknowledgement_control is not None:
                self._open[mid] = data.acquire_publish_acknowledgement_control()
        delivery = Delivery(
            topic=packet.topic,
            payload=as_far_as_it_may_go(packet.payload or b""),
            retained=bool(packet.retain),
            qos=int(packet.qos),
            mid=mid,
            connection=connection,
        )
        hand_over(self._inbox, delivery, lambda: self._stopping)


def _reason(packet: Any, error: object) -> str:
    """What the broker says, else what the client does."""
    reason = getattr(packet, "reason_code", None)
    return str(error) if reason is None else reason.name
