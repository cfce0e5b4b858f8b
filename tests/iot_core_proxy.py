"""Stands between clients with certificates and a plain broker, as strict as AWS IoT Core.

It ends the TLS, holds every packet against AWS's limits, and passes it on unchanged. One event loop
on a thread of its own.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bench.mqtt_packets import Packet, Splitter
from tests.certificates import Authority
from tests.iot_core_limits import Conversation

ALPN = "x-amzn-mqtt-ca"
PULSE_S, LATELY = 0.05, 40


class LimitsProxy:
    """What was said through it."""

    def __init__(self, upstream_port: int, context: ssl.SSLContext) -> None:
        self.port = 0
        self.conversations: list[Conversation] = []
        self._upstream_port, self._context = upstream_port, context
        self._server: asyncio.Server | None = None
        self._stalls: deque[float] = deque([0.0], maxlen=LATELY)
        self._pulse: asyncio.Task[None] | None = None

    @property
    def broken(self) -> list[str]:
        """Every limit that anybody broke."""
        return [problem for one in self.conversations for problem in one.broken]

    def of(self, client_id: str) -> Conversation:
        """The first conversation of a client."""
        return next(one for one in self.conversations if one.client_id == client_id)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        self._pulse = asyncio.create_task(self._feel_stalls())

    async def _feel_stalls(self) -> None:
        """How late this thread was of late: what it sees at once may have come one by one."""
        now = asyncio.get_running_loop().time
        while True:
            begin = now()
            await asyncio.sleep(PULSE_S)
            self._stalls.append(now() - begin - PULSE_S)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation, now = Conversation(), asyncio.get_running_loop().time
        self.conversations.append(conversation)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        up = _pass_on(
            reader, up_writer, lambda packet: conversation.sent(packet, now(), max(self._stalls))
        )
        down = _pass_on(up_reader, writer, conversation.received)
        tasks = [asyncio.create_task(up), asyncio.create_task(down)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            up_writer.transport.abort()
            writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[Packet], None]
) -> None:
    splitter = Splitter()
    with suppress(OSError):
        while data := await reader.read(65536):
            for packet in splitter.feed(data):
                see(packet)
            writer.write(data)
            await writer.drain()


@contextmanager
def limits_proxy(upstream_port: int, authority: Authority) -> Iterator[LimitsProxy]:
    """Serve on a free port until the end; a client needs a certificate of `authority`."""
    own = authority.issue("iot-core")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate_file, own.key_file)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])
    proxy, loop = LimitsProxy(upstream_port, context), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="limits", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.open(), loop).result(20.0)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(20.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
