"""What a cloud must do at least: commit, then receipt, then PUBACK; a message twice is one fact.

Must never believe what the contract does not: it is then counted as quarantined.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.errors import ContractError
from common.messages import Acknowledgement, Breach, Receipt, TripSummary, decode, encode
from common.topics import parse_topic, subscription, topic

UPWARD: dict[str, type[Any]] = {"trip": TripSummary, "breach": Breach, "ack": Acknowledgement}
SESSION_S = 3600


class ReceiptingCloud:
    """Connected from `start` to `stop`; what it has committed may be read at any time."""

    def __init__(self, port: int) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.breach_odometers: dict[str, list[float]] = {}
        self.deliveries: Counter[str] = Counter()
        self.committed_at: dict[str, float] = {}
        self.quarantined = 0
        self._lock = threading.Lock()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id="stand-in",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        self._client.suppress_exceptions = True
        self._client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]  # it only adds
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S
        self._client.connect_async("127.0.0.1", port, 5, clean_start=False, properties=properties)
        self._granted = threading.Event()
        self._client.on_subscribe = lambda *_: self._granted.set()

    def start(self) -> ReceiptingCloud:
        """Return once it is subscribed."""
        self._client.loop_start()
        self._granted.wait(30.0)
        return self

    def stop(self) -> None:
        """Its session stays with the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def stored(self, vehicle_id: str) -> set[str]:
        """Ids of the messages of one vehicle."""
        with self._lock:
            return set(self.facts.get(vehicle_id, {}))

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe([(subscription(kind), 1) for kind in UPWARD])  # type: ignore[arg-type]

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        self._take(client, message)
        client.ack(message.mid, message.qos)

    def _take(self, client: Client, message: MQTTMessage) -> None:
        try:
            vehicle_id, kind = parse_topic(message.topic)
            found = decode(bytes(message.payload), UPWARD[kind])
        except (ContractError, KeyError, UnicodeDecodeError):
            self.quarantined += 1
            return
        if found.vehicle_id != vehicle_id:
            self.quarantined += 1
            return
        with self._lock:
            self._commit(vehicle_id, found)
        receipt = Receipt(vehicle_id=vehicle_id, message_ids=[found.message_id])
        client.publish(topic(vehicle_id, "receipt"), encode(receipt), qos=1)

    def _commit(self, vehicle_id: str, found: Any) -> None:
        self.deliveries[found.message_id] += 1
        facts = self.facts.setdefault(vehicle_id, {})
        if found.message_id in facts:
            return
        facts[found.message_id] = found
        self.committed_at[found.message_id] = time.monotonic()
        if isinstance(found, Breach):
            self.breach_odometers.setdefault(vehicle_id, []).append(found.odometer)
