"""One vehicle's connection to the broker, in a few hundred bytes: MQTT 3.1.1 on asyncio.

Ten thousand of them fit one process, which no client library allows. QoS 1 both ways. Must never
decide what a message means, and never say that the cloud has what only the broker has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bench.mqtt_packets import CONNACK, PUBACK, PUBLISH, SUBACK, Splitter

Heard = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Will:
    """What the broker says when the connection breaks."""

    topic: str
    payload: bytes


class ThinLink(asyncio.Protocol):
    """Open it with `open_link`."""

    def __init__(self, client_id: str, topics: Sequence[str], heard: Heard, will: Will) -> None:
        self._client_id, self._topics, self._heard, self._will = client_id, topics, heard, will
        self._splitter = Splitter()
        self._packet_id = 0
        self.published = self.acknowledged = 0  # the latter by the broker, not by the cloud
        self._eased = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._loop = loop = asyncio.get_running_loop()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over at QoS 1; nothing when the connection is gone."""
        self._packet_id = self._packet_id % 65535 + 1
        self.published += 1
        body = _text(topic) + self._packet_id.to_bytes(2, "big") + payload
        self._send(_packet(0x32 | retain, body))

    async def drained(self, most: int) -> None:
        """Until at most so many messages are open with the broker. Raises ConnectionResetError."""
        while self.published - self.acknowledged > most:
            self._eased.clear()
            eased: asyncio.Future[Any] = asyncio.ensure_future(self._eased.wait())
            await asyncio.wait({eased, self.lost}, return_when=asyncio.FIRST_COMPLETED)
            eased.cancel()
            if self.lost.done():
                raise ConnectionResetError(f"the broker closed the connection of {self._client_id}")

    def close(self) -> None:
        """Leave without a word: the broker publishes the will."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are, and what we listen to, at once: MQTT 3.1.1 allows it (3.1.4)."""
        self._transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(_connect(self._client_id, self._will) + _subscribe(self._topics))

    def data_received(self, data: bytes) -> None:
        """Take whole packets apart; acknowledge what was published to us."""
        for packet in self._splitter.feed(data):
            if packet.kind == PUBLISH:
                if packet.qos:
                    self._send(_packet(0x40, packet.packet_id.to_bytes(2, "big")))
                start = 2 + int.from_bytes(packet.body[:2], "big") + (2 if packet.qos else 0)
                self._heard(packet.topic, packet.body[start:])
            elif packet.kind == PUBACK:
                self.acknowledged += 1
                self._eased.set()
            elif packet.kind == SUBACK and not self.subscribed.done():
                self.subscribed.set_result(None)
            elif packet.kind == CONNACK and packet.body[1]:
                self.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)

    def _send(self, data: bytes) -> None:
        """What is said in one turn of the loop goes in one system call."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport is not None:
            self._transport.write(data)


async def open_link(
    port: int, client_id: str, topics: Sequence[str], heard: Heard, will: Will
) -> ThinLink:
    """A connection whose subscriptions are granted. Raises OSError."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        lambda: ThinLink(client_id, topics, heard, will), "127.0.0.1", port
    )
    await asyncio.wait({link.subscribed, link.lost}, return_when=asyncio.FIRST_COMPLETED)
    if link.lost.done():
        raise ConnectionResetError(f"the broker closed the connection of {client_id}")
    return link


def _connect(client_id: str, will: Will) -> bytes:
    """A clean session with a retained will at QoS 1, no keep-alive."""
    flags = 0b00101110
    body = _text("MQTT") + bytes([4, flags, 0, 0]) + _text(client_id)
    body += _text(will.topic) + len(will.payload).to_bytes(2, "big") + will.payload
    return _packet(0x10, body)


def _subscribe(topics: Sequence[str]) -> bytes:
    body = (1).to_bytes(2, "big") + b"".join(_text(topic) + b"\x01" for topic in topics)
    return _packet(0x82, body)


def _packet(head: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([head]) + bytes(encoded) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
