"""Split a stream of bytes into MQTT packets; tell and mark a PUBLISH. Pure; both protocol versions.

Must never change a byte of a packet but the DUP flag (MQTT 5, 2.1 and 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12
DUP = 0x08
LONGEST_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole packet."""

    raw: bytes
    body_at: int

    @property
    def kind(self) -> int:
        """The packet type, 1 to 14."""
        return self.raw[0] >> 4

    @property
    def body(self) -> bytes:
        """Everything after the fixed header."""
        return self.raw[self.body_at :]

    @property
    def qos(self) -> int:
        """Of a PUBLISH."""
        return (self.raw[0] >> 1) & 3

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        length = int.from_bytes(self.body[:2], "big")
        return self.body[2 : 2 + length].decode(errors="replace")

    @property
    def packet_id(self) -> int:
        """Of a PUBLISH at QoS 1, a PUBACK, a SUBSCRIBE."""
        at = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2], "big")

    def again(self) -> bytes:
        """The same PUBLISH as a sender repeats it."""
        return bytes([self.raw[0] | DUP]) + self.raw[1:]


class Splitter:
    """Feed it bytes as they come; it gives whole packets."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are complete now."""
        self._held += data
        packets: list[Packet] = []
        while (packet := self._next()) is not None:
            packets.append(packet)
            self._held = self._held[len(packet.raw) :]
        return packets

    def _next(self) -> Packet | None:
        length = 0
        for place in range(LONGEST_LENGTH):
            if len(self._held) < 2 + place:
                return None
            byte = self._held[1 + place]
            length |= (byte & 0x7F) << (7 * place)
            if not byte & 0x80:
                body_at = 2 + place
                whole = self._held[: body_at + length]
                return Packet(whole, body_at) if len(whole) == body_at + length else None
        return None
