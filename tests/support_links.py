"""A link of either client to a broker with mutual TLS, and what a test wants to know of it."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cloud.config import Aws, Mqtt, Tls
from cloud.intake.interpretation import Delivery
from cloud.mqtt.choice import open_link
from cloud.mqtt.protocol import Inbox, Link
from cloud.mqtt.session import Session
from demo.broker import BrokerTls
from tests.certificates import Authority, Issued
from tests.waiting import eventually

Transport = Literal["paho", "aws"]
TRANSPORTS: tuple[Transport, ...] = ("paho", "aws")


def broker_tls(authority: Authority) -> BrokerTls:
    own = authority.issue("broker")
    return BrokerTls(authority.ca_file, own.certificate_file, own.key_file)


def mqtt_config(
    transport: Transport,
    port: int,
    authority: Authority,
    own: Issued,
    client_id: str = "service",
    shared_group: str | None = None,
) -> Mqtt:
    """Without AWS's pace: what is tested of the rest would only take longer."""
    files = (authority.ca_file, own.certificate_file, own.key_file)
    return Mqtt(
        host="localhost",
        port=port,
        client_id=client_id,
        shared_group=shared_group,
        tls=Tls(*map(str, files)),
        transport=transport,
        aws=Aws(limits=False),
    )


@dataclass
class Opened:
    """A link, its inbox, and its connections so far."""

    link: Link
    inbox: Inbox
    connections: list[None] = field(default_factory=list)

    def await_connections(self, number: int) -> None:
        eventually(lambda: len(self.connections) >= number, what=f"connection {number}")

    def delivery(self, deadline_s: float = 20.0) -> Delivery:
        found = self.inbox.get(timeout=deadline_s)
        assert found is not None
        return found

    def take(self, number: int) -> list[Delivery]:
        """That many deliveries, each acknowledged as if it were committed."""
        found: list[Delivery] = []
        for _ in range(number):
            found.append(self.delivery())
            self.link.acknowledge(found[-1])
        return found

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> Callable[[], bool]:
        """Hand it over; the result tells whether the broker has it."""
        confirmed: list[None] = []
        assert self.link.publish(topic, payload, lambda: confirmed.append(None), retain=retain)
        return lambda: len(confirmed) == 1


def open_one(config: Mqtt, inbox_size: int = 1024, session: Session | None = None) -> Opened:
    """Not started."""
    inbox: Inbox = queue.Queue(inbox_size)
    connections: list[None] = []
    link = open_link(config, inbox, lambda: connections.append(None), random.Random(1), session)
    return Opened(link, inbox, connections)
