"""AWS IoT Core's limits of a connection, held against the packets of one. Pure.

(AWS General Reference, "AWS IoT Core endpoints and quotas".) Rates are a token bucket as deep as a
second: a client that spaces its messages is never called too fast because a machine stood still.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.mqtt_packets import CONNECT, PUBACK, PUBLISH, SUBSCRIBE, Packet

PAYLOAD_BYTES, TOPIC_BYTES, SLASHES = 128 * 1024, 256, 7
PUBLISHES_PER_S, BYTES_PER_S = 100.0, 512.0 * 1024
UNACKNOWLEDGED = 100
SUBSCRIPTIONS, SUBSCRIPTIONS_A_CALL = 50, 8
KEEP_ALIVE_S = (30, 1200)
CLIENT_ID_BYTES = 128
QOS_2_KINDS = (5, 6, 7)


@dataclass
class Bucket:
    """As many tokens as a second gives, full at first; `take` says whether there were enough."""

    per_s: float
    level: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.level = self.per_s

    def take(self, amount: float, now: float, stalled_s: float = 0.0) -> bool:
        """What came while the observer itself stood still is seen at once: deeper by that time."""
        passed = 0.0 if self.at is None else now - self.at
        depth = self.per_s * (1.0 + stalled_s)
        self.level = min(depth, self.level + passed * self.per_s) - amount
        self.at = now
        return self.level >= 0.0


class Conversation:
    """One connection. `broken` names each limit that its client did not keep, and how."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.client_id = ""
        self.most_unacknowledged = 0
        self.publishes = 0
        self._five = False
        self._publishes, self._bytes = Bucket(PUBLISHES_PER_S), Bucket(BYTES_PER_S)
        self._open: set[int] = set()
        self._filters: set[str] = set()

    def sent(self, packet: Packet, now: float, stalled_s: float = 0.0) -> None:
        """A packet of the client at `now`, seconds; the observer lately stood still for so long."""
        if not self._bytes.take(len(packet.raw), now, stalled_s):
            self._complain("more than 512 KB in a second")
        if packet.kind == CONNECT:
            self._check_connect(packet)
        elif packet.kind == PUBLISH:
            self._check_publish(packet, now, stalled_s)
        elif packet.kind == SUBSCRIBE:
            self._check_subscribe(packet)
        elif packet.kind in QOS_2_KINDS:
            self._complain("it speaks QoS 2")

    def received(self, packet: Packet) -> None:
        """A packet of the broker."""
        if packet.kind == PUBACK:
            self._open.discard(packet.packet_id)

    def _check_connect(self, packet: Packet) -> None:
        body = packet.body
        self._five = body[6] == 5  # after the name "MQTT"
        keep_alive = int.from_bytes(body[8:10], "big")
        if not KEEP_ALIVE_S[0] <= keep_alive <= KEEP_ALIVE_S[1]:
            self._complain(f"a keep-alive of {keep_alive} s")
        if (body[7] >> 3) & 3 == 2:
            self._complain("a last will at QoS 2")
        at = 10 + (1 + body[10] if self._five else 0)  # properties shorter than 128 bytes
        client_id, _ = _text(body, at)
        self.client_id = client_id.decode()
        if len(client_id) > CLIENT_ID_BYTES:
            self._complain(f"a client id of {len(client_id)} bytes")

    def _check_publish(self, packet: Packet, now: float, stalled_s: float) -> None:
        self.publishes += 1
        if not self._publishes.take(1, now, stalled_s):
            self._complain("more than 100 publishes in a second")
        topic, at = _text(packet.body, 0)
        self._check_topic(topic.decode())
        if packet.qos == 2:
            self._complain("it publishes at QoS 2")
        if packet.qos:
            at += 2
            self._open.add(packet.packet_id)
            self.most_unacknowledged = max(self.most_unacknowledged, len(self._open))
            if len(self._open) > UNACKNOWLEDGED:
                self._complain("more than 100 unacknowledged messages")
        payload = len(packet.body) - at - (1 + packet.body[at] if self._five else 0)
        if payload > PAYLOAD_BYTES:
            self._complain(f"a payload of {payload} bytes")

    def _check_subscribe(self, packet: Packet) -> None:
        body, at = packet.body, 3 + packet.body[2] if self._five else 2
        call: list[str] = []
        while at < len(body):
            found, at = _text(body, at)
            call.append(found.decode())
            if body[at] & 3 == 2:
                self._complain("it subscribes at QoS 2")
            at += 1
        self._filters.update(call)
        if len(call) > SUBSCRIPTIONS_A_CALL:
            self._complain(f"{len(call)} subscriptions in one call")
        if len(self._filters) > SUBSCRIPTIONS:
            self._complain(f"{len(self._filters)} subscriptions")
        for name in call:
            shared = name.startswith("$share/")
            self._check_topic(name.split("/", 2)[2] if shared else name)

    def _check_topic(self, name: str) -> None:
        if len(name.encode()) > TOPIC_BYTES:
            self._complain(f"a topic of {len(name.encode())} bytes")
        if name.count("/") > SLASHES:
            self._complain(f"a topic with {name.count('/')} slashes")

    def _complain(self, problem: str) -> None:
        told = f"{self.client_id or 'somebody'}: {problem}"
        if told not in self.broken:
            self.broken.append(told)


def _text(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : end], end
