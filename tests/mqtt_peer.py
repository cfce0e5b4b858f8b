"""An MQTT client for tests: it waits for every answer and remembers what came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from demo.broker import PrivateBroker
from tests.certificates import Authority, Issued
from tests.waiting import eventually

FIRST_FAILURE = 128
DEADLINE_S = 20.0


class Peer:
    """An MQTT client that remembers what it got and what its publishes were answered."""

    def __init__(
        self,
        broker: PrivateBroker,
        client_id: str,
        *,
        identity: tuple[Authority, Issued | None] | None = None,
        keeps_session: bool = False,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._answers: dict[int, int] = {}
        self._subscribed: set[int] = set()
        self._connected = threading.Event()
        five = broker.mqtt_version == "5"
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5 if five else MQTTv311,
        )
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        if identity is not None:
            _secure(self._client, *identity)
        session = _session(keeps_session=keeps_session) if five else {}
        self._client.connect(broker.host, broker.port, **session)
        self._client.loop_start()
        assert self._connected.wait(DEADLINE_S), f"{client_id} was not connected"

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def publish(self, name: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1; 0, or the reason why the broker refused."""
        sent = self._client.publish(name, payload, qos=1, retain=retain)
        eventually(lambda: sent.mid in self._answers, what=f"PUBACK for {name}")
        code = self._answers[sent.mid]
        return code if code >= FIRST_FAILURE else 0  # 16: taken, but nobody has subscribed

    def publish_all(self, name: str, payloads: Iterable[bytes]) -> None:
        """Publish one after another with QoS 1, and wait for the broker's answers at the end."""
        sent = [self._client.publish(name, payload, qos=1).mid for payload in payloads]
        eventually(lambda: self._answers.keys() >= set(sent), what=f"every PUBACK for {name}")

    def subscribe(self, *filters: str) -> None:
        """Subscribe with QoS 1 and wait until the broker has answered."""
        _, number = self._client.subscribe([(name, 1) for name in filters])
        eventually(lambda: number in self._subscribed, what=f"SUBACK for {filters}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, *_: Any
    ) -> None:
        if not code.is_failure:
            self._connected.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))

    def _on_publish(
        self, _client: Client, _data: Any, number: int, code: ReasonCode, *_: Any
    ) -> None:
        self._answers[number] = code.value

    def _on_subscribe(self, _client: Client, _data: Any, number: int, *_: Any) -> None:
        self._subscribed.add(number)


def _secure(client: Client, authority: Authority, own: Issued | None) -> None:
    client.tls_set(
        str(authority.ca_file),
        str(own.certificate_file) if own else None,
        str(own.key_file) if own else None,
    )


def _session(*, keeps_session: bool) -> dict[str, Any]:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600 if keeps_session else 0
    return {"clean_start": not keeps_session, "properties": properties}


Connect = Callable[..., Peer]
