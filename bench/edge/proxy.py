"""A TCP proxy that does to a connection what mobile networks, brokers and bad memory do.

One event loop on a thread of its own; faults are ordered from any other. It knows where packets
begin and end. Must never change payloads: TLS keeps those whole, and without it nobody claims to.
"""

from __future__ import annotations

import asyncio
import enum
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

from bench.mqtt_packets import PUBLISH, Packet, Splitter

HOLD_S = 0.3
TRICKLE_BYTES, TRICKLE_S, TRICKLED = 5, 0.004, 400
HOST = "127.0.0.1"


class Fault(enum.Enum):
    """What can happen to one connection."""

    CUT = "cut"
    HALF_OPEN = "half-open: nothing arrives either way"
    HOLE_UP = "nothing arrives at the broker"
    HOLE_DOWN = "nothing arrives at the vehicle"
    SLOW = "a few bytes at a time"
    DELAY = "everything a third of a second late"
    DUPLICATE_UP = "a publish comes twice at the broker"
    DUPLICATE_DOWN = "a publish comes twice at the vehicle"
    REORDER_UP = "a publish is overtaken by the next"
    REORDER_DOWN = "a delivery is overtaken by the next"
    CORRUPT_UP = "a bit of a header is flipped on the way up"
    CORRUPT_DOWN = "a bit of a header is flipped on the way down"
    REFUSE = "cut, and refused for a third of a second"


_BOTH = ("up", "down")
_EFFECTS: dict[Fault, tuple[tuple[str, ...], str, bool | float | int]] = {
    Fault.HALF_OPEN: (_BOTH, "is_holed", True),
    Fault.HOLE_UP: (("up",), "is_holed", True),
    Fault.HOLE_DOWN: (("down",), "is_holed", True),
    Fault.SLOW: (_BOTH, "trickle_left", TRICKLED),
    Fault.DELAY: (_BOTH, "delay_s", HOLD_S),
    Fault.DUPLICATE_UP: (("up",), "duplicates", 1),
    Fault.DUPLICATE_DOWN: (("down",), "duplicates", 1),
    Fault.REORDER_UP: (("up",), "reorders", 1),
    Fault.REORDER_DOWN: (("down",), "reorders", 1),
    Fault.CORRUPT_UP: (("up",), "corrupts", 1),
    Fault.CORRUPT_DOWN: (("down",), "corrupts", 1),
}
"""Which pipes of a relay are touched, and what of them is set."""


class _Pipe:
    """One direction of one connection."""

    def __init__(self, writer: asyncio.StreamWriter, draw: random.Random) -> None:
        self.writer, self._draw = writer, draw
        self.is_holed = False
        self.delay_s = 0.0
        self.trickle_left = 0
        self.duplicates = self.reorders = self.corrupts = 0
        self._held: bytes | None = None
        self._splitter = Splitter()

    async def run(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            for packet in self._splitter.feed(data):
                await self._pass(packet)

    async def _pass(self, packet: Packet) -> None:
        if self.is_holed:
            return
        if self.delay_s:
            delay_s, self.delay_s = self.delay_s, 0.0
            await asyncio.sleep(delay_s)
        raw = packet.raw
        if self.corrupts:
            self.corrupts -= 1
            raw = self._flipped(packet)
        if packet.kind != PUBLISH:
            await self._write(raw)
        elif self.reorders and self._held is None:
            self.reorders -= 1
            self._held = raw
            asyncio.get_running_loop().call_later(HOLD_S, self._let_go)
        else:
            await self._write(raw)
            if self.duplicates:
                self.duplicates -= 1
                await self._write(packet.again())
            self._let_go()

    def _flipped(self, packet: Packet) -> bytes:
        header = packet.body_at + (2 + len(packet.topic) + 2 if packet.kind == PUBLISH else 2)
        place = self._draw.randrange(min(header, len(packet.raw)))
        flipped = packet.raw[place] ^ (1 << self._draw.randrange(8))
        return packet.raw[:place] + bytes([flipped]) + packet.raw[place + 1 :]

    def _let_go(self) -> None:
        if self._held is not None and not self.writer.is_closing():
            self.writer.write(self._held)
        self._held = None

    async def _write(self, raw: bytes) -> None:
        while raw and self.trickle_left > 0:
            self.trickle_left -= 1
            self.writer.write(raw[:TRICKLE_BYTES])
            raw = raw[TRICKLE_BYTES:]
            await asyncio.sleep(TRICKLE_S)
        self.writer.write(raw)
        await self.writer.drain()


class _Relay:
    """One connection: a pipe up to the broker and one down to the vehicle."""

    def __init__(self, up: _Pipe, down: _Pipe) -> None:
        self.up, self.down = up, down

    def cut(self) -> None:
        for pipe in (self.up, self.down):
            pipe.writer.transport.abort()

    def suffer(self, fault: Fault) -> None:
        if fault in (Fault.CUT, Fault.REFUSE):
            self.cut()
            return
        directions, effect, value = _EFFECTS[fault]
        for direction in directions:
            setattr(getattr(self, direction), effect, value)


class Proxy:
    """Between vehicles and one broker; a context manager. `delay_s` is the line's, each way."""

    def __init__(self, upstream_port: int, draw: random.Random, delay_s: float = 0.0) -> None:
        self.port = 0
        self._upstream_port, self._draw, self._delay_s = upstream_port, draw, delay_s
        self._relays: list[_Relay] = []
        self._refuses_until = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def inject(self, fault: Fault) -> bool:
        """Let it happen to some connection; False when there is none."""
        done: bool = self._do(self._inject(fault))
        return done

    def heal(self) -> None:
        """Cut whatever is still crippled: a hole would end with the next keep-alive anyway."""
        self._do(self._call(self._cut_all))

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30.0)

    async def _call(self, what: Callable[[], None]) -> None:
        what()

    def _cut_all(self) -> None:
        for relay in self._relays:
            relay.cut()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None  # noqa: S101 - opened before
        self._server.close()
        self._cut_all()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _inject(self, fault: Fault) -> bool:
        if not self._relays:
            return False
        if fault is Fault.REFUSE:
            self._refuses_until = self._loop.time() + HOLD_S
        self._draw.choice(self._relays).suffer(fault)
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._loop.time() < self._refuses_until:
            writer.transport.abort()
            return
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        relay = _Relay(_Pipe(broker_writer, self._draw), _Pipe(writer, self._draw))
        self._relays.append(relay)
        up = asyncio.create_task(relay.up.run(_late(reader, self._delay_s)))
        down = asyncio.create_task(relay.down.run(_late(broker_reader, self._delay_s)))
        try:
            with suppress(asyncio.CancelledError):  # the proxy closes
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._relays.remove(relay)
            relay.cut()
            for task in (up, down):
                task.cancel()
            for task in (up, down):
                with suppress(OSError, asyncio.CancelledError):
                    await task


def _late(reader: asyncio.StreamReader, delay_s: float) -> asyncio.StreamReader:
    """The same bytes, each `delay_s` later, however many are on the way."""
    if delay_s <= 0:
        return reader
    late = asyncio.StreamReader()
    loop = asyncio.get_running_loop()

    async def copy() -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                loop.call_later(delay_s, late.feed_data, data)
        loop.call_later(delay_s, late.feed_eof)

    late.copying = asyncio.create_task(copy())  # type: ignore[attr-defined]  # kept alive with it
    return late
