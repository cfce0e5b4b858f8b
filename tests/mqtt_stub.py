"""A broker of a few lines, plain or with TLS, that says in its CONNACK what a test wants.

It reports what it saw: SNI, ALPN, the client's certificate, every packet. It acknowledges only when
told to, and sends whatever bytes it is given.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.mqtt_packets import CONNECT, PINGREQ, PUBLISH, SUBSCRIBE, Packet, Splitter
from tests.certificates import Authority, Issued

V5 = 5


@dataclass
class Visit:
    """One connection."""

    connection: socket.socket
    alpn: str | None = None
    tls_version: str | None = None
    client_name: str | None = None
    packets: list[Packet] = field(default_factory=list)

    def publishes(self, kind: str = "") -> list[Packet]:
        found = [packet for packet in self.packets if packet.kind == PUBLISH]
        return [packet for packet in found if packet.topic.endswith(kind)]

    def send(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def cut(self) -> None:
        """End the connection as a lost line does."""
        _hang_up(self.connection)


@dataclass
class Stub:
    """`properties` go into the CONNACK of an MQTT 5 client; `answers` says whether there is one.

    `granted` is the reason code of each subscription.
    """

    port: int
    properties: bytes = b""
    answers: bool = True
    acknowledges: bool = True
    granted: int = 1
    visits: list[Visit] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def mqtt_stub(
    tls: tuple[Authority, Issued] | None = None,
    configure: Callable[[ssl.SSLContext], Any] = id,
    host: str = "127.0.0.1",
) -> Iterator[Stub]:
    """Serve on a free port until the end; `configure` may change the server's TLS context."""
    with socket.create_server((host, 0)) as listener:
        stub = Stub(listener.getsockname()[1])
        context = None if tls is None else _context(*tls, stub)
        if context is not None:
            configure(context)
        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=_accept, args=(listener, context, stub, threads))
        accepting.start()
        try:
            yield stub
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for visit in stub.visits:
                _hang_up(visit.connection)
            for thread in threads:
                thread.join()


def _context(authority: Authority, own: Issued, stub: Stub) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate_file, own.key_file)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["x-amzn-mqtt-ca", "mqtt"])
    context.sni_callback = lambda _socket, name, _context: stub.server_names.append(name)
    return context


def _accept(
    listener: socket.socket,
    context: ssl.SSLContext | None,
    stub: Stub,
    threads: list[threading.Thread],
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        thread = threading.Thread(target=_serve, args=(connection, context, stub))
        threads.append(thread)
        thread.start()


def _serve(connection: socket.socket, context: ssl.SSLContext | None, stub: Stub) -> None:
    try:
        visit = Visit(connection) if context is None else _secure(connection, context)
    except OSError as error:
        stub.failures.append(str(error))
        connection.close()
        return
    stub.visits.append(visit)
    splitter = Splitter()
    try:
        while data := visit.connection.recv(65536):
            for packet in splitter.feed(data):
                visit.packets.append(packet)
                _answer(visit, packet, stub)
    except OSError as error:
        stub.failures.append(str(error))
    finally:
        visit.connection.close()


def _secure(connection: socket.socket, context: ssl.SSLContext) -> Visit:
    connection.settimeout(20.0)
    try:
        secured = context.wrap_socket(connection, server_side=True)
    except OSError:
        connection.close()
        raise
    certificate: Any = secured.getpeercert()
    names = {key: value for part in certificate["subject"] for key, value in part}
    return Visit(
        secured, secured.selected_alpn_protocol(), secured.version(), names.get("commonName")
    )


def _answer(visit: Visit, packet: Packet, stub: Stub) -> None:
    five = protocol_of(visit) == V5
    if packet.kind == CONNECT and stub.answers:
        properties = bytes([len(stub.properties)]) + stub.properties if five else b""
        visit.send(bytes([0x20, 2 + len(properties), 0, 0]) + properties)
    elif packet.kind == SUBSCRIBE:
        reasons = bytes([stub.granted]) * len(filters_of(packet, five=five))
        granted = packet.body[:2] + (b"\0" if five else b"") + reasons
        visit.send(bytes([0x90, len(granted)]) + granted)
    elif packet.kind == PUBLISH and stub.acknowledges:
        acknowledge(visit, packet)
    elif packet.kind == PINGREQ and stub.answers:
        visit.send(b"\xd0\x00")


def filters_of(packet: Packet, *, five: bool) -> list[str]:
    """Of a SUBSCRIBE; its properties, if any, are shorter than 128 bytes."""
    at = 3 + packet.body[2] if five else 2
    filters: list[str] = []
    while at < len(packet.body):
        end = at + 2 + int.from_bytes(packet.body[at : at + 2], "big")
        filters.append(packet.body[at + 2 : end].decode())
        at = end + 1
    return filters


def protocol_of(visit: Visit) -> int:
    """4 for MQTT 3.1.1, 5 for MQTT 5: the byte after the name "MQTT"."""
    return visit.packets[0].body[6]


def acknowledge(visit: Visit, packet: Packet) -> None:
    visit.send(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))


def publish(topic: bytes, payload: bytes, *, five: bool = True) -> bytes:
    """A PUBLISH at QoS 0."""
    body = len(topic).to_bytes(2, "big") + topic + (b"\0" if five else b"") + payload
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length += bytes([digit | (0x80 if rest else 0)])
        if not rest:
            return b"\x30" + length + body


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()
