"""A small cloud that keeps the contract: committed, then acknowledged, then receipted.

`python -m bench.edge.stand_in_cloud PORT DATABASE BUNDLE`. It keeps every content that came, so
that a fact which came twice with two contents is seen; each breach brings the next revision,
published retained, and again to a vehicle that says it runs an older one. Must never forget.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.edge.made_up_car import car, number_of
from common.bundle import load_bundle
from common.messages import Receipt, encode
from common.topics import parse_topic, topic

UPWARD: Final = ("trip", "breach", "ack", "status")
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY,
    vehicle_id TEXT NOT NULL, kind TEXT NOT NULL, message_id TEXT NOT NULL, payload BLOB NOT NULL,
    UNIQUE (message_id, payload))
"""


class StandInCloud:
    """One connection, one database; everything happens on the connection's thread."""

    def __init__(self, port: int, database: Path, bundle: Path) -> None:
        self._port = port
        self._bundle = load_bundle(bundle)
        self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(SCHEMA)
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id="stand-in-cloud",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: print("ready", flush=True)
        self._client.on_message = self._on_message

    def run(self) -> None:
        """Until it is killed."""
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=session)
        self._client.loop_forever()

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe([(f"twin/v1/+/{kind}", 1) for kind in UPWARD])

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        vehicle_id, kind = parse_topic(message.topic)
        payload = bytes(message.payload)
        content = msgspec.json.decode(payload)
        is_new_breach = False
        if kind == "status":
            self._answer_status(vehicle_id, content)
        else:
            is_new_breach = self._keep(
                vehicle_id, kind, content["message_id"], bytes(message.payload)
            )
        client.ack(message.mid, message.qos)
        if kind != "status":
            receipt = Receipt(vehicle_id=vehicle_id, message_ids=[content["message_id"]])
            client.publish(topic(vehicle_id, "receipt"), encode(receipt), qos=1)
        if is_new_breach:
            self._publish_newest(vehicle_id)

    def _keep(self, vehicle_id: str, kind: str, message_id: str, payload: bytes) -> bool:
        """Commit; whether it is a breach that was not known."""
        known = "SELECT 1 FROM message WHERE message_id = ?"
        is_new = self._db.execute(known, (message_id,)).fetchone() is None
        self._db.execute(
            "INSERT OR IGNORE INTO message (vehicle_id, kind, message_id, payload) "
            "VALUES (?, ?, ?, ?)",
            (vehicle_id, kind, message_id, payload),
        )
        return is_new and kind == "breach"

    def _answer_status(self, vehicle_id: str, status: dict[str, Any]) -> None:
        if status["online"] and status["revision"] < len(self._breached_trips(vehicle_id)):
            self._publish_newest(vehicle_id)

    def _publish_newest(self, vehicle_id: str) -> None:
        trips = self._breached_trips(vehicle_id)
        cause = number_of(trips[-1]) or 0
        revision = car(vehicle_id, self._bundle).revision(len(trips), cause)
        self._client.publish(topic(vehicle_id, "parameters"), revision, qos=1, retain=True)

    def _breached_trips(self, vehicle_id: str) -> list[str]:
        """In the order in which their breaches came first."""
        query = (
            "SELECT payload ->> 'trip_id' FROM message WHERE vehicle_id = ? AND kind = 'breach' "
            "GROUP BY message_id ORDER BY MIN(seq)"
        )
        return [row[0] for row in self._db.execute(query, (vehicle_id,))]


def main(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """Entry point."""
    StandInCloud(int(arguments[0]), Path(arguments[1]), Path(arguments[2])).run()


if __name__ == "__main__":
    main()
