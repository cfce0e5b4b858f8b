"""Drive thin cars against a broker, in a process of their own, and say what they saw.

Must never publish before `go` has been given: connecting is not what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Self

from bench.fleet.thin_car import Offer, ThinCar
from bench.fleet.thin_link import ThinLink, Will, open_link
from common.topics import parse_topic, topic

AGAIN_S = 5.0
"""How long a car waits for a receipt or an outcome before it offers everything again."""
CONNECTING_AT_ONCE = 64


@dataclass
class Driven:
    """What all cars saw, merged. Ids are those of messages whose receipt came."""

    trips: list[tuple[str, str]] = field(default_factory=list)
    breaches: list[tuple[str, str]] = field(default_factory=list)
    acknowledgements: int = 0
    applied: int = 0
    refused: int = 0
    declined: int = 0
    outcome_s: list[float] = field(default_factory=list)
    """Breach offered to outcome known, where it was a revision that the car applied."""
    began_s: float = 0.0
    """By time.monotonic(), which all processes of a machine share."""
    ended_s: float = 0.0
    cpu_s: float = 0.0
    reconnections: int = 0

    @property
    def seconds(self) -> float:
        """From the first message to the last answer."""
        return self.ended_s - self.began_s


@dataclass(frozen=True)
class Life:
    """A car, its trips as its `drive` takes them, and when each starts.

    In seconds after `go`; None: as soon as the one before is settled.
    """

    car: ThinCar
    trips: Sequence[Any]
    schedule_s: Sequence[float] | None = None


class _Driver:
    """One car on its link; the link is opened again when it breaks."""

    def __init__(self, life: Life, port: int, into: Driven) -> None:
        self._life, self._port, self._into = life, port, into
        self._id = life.car.who.vehicle_id
        self._link: ThinLink | None = None
        self._news = asyncio.Event()

    async def connect(self) -> None:
        """Once; sends the status that every agent sends."""
        car = self._life.car
        will = Will(topic(self._id, "status"), car.status(0.0, online=False))
        listens = [topic(self._id, kind) for kind in ("parameters", "receipt")]
        self._link = await open_link(self._port, f"thin-{self._id}", listens, self._heard, will)
        self._link.publish(will.topic, car.status(time.time(), online=True), retain=True)

    async def drive(self, go_s: float) -> None:
        """Every trip, each after the outcome of the one before."""
        schedule = self._life.schedule_s or [0.0] * len(self._life.trips)
        for trip, at_s in zip(self._life.trips, schedule, strict=True):
            await asyncio.sleep(max(go_s + at_s - time.monotonic(), 0.0))
            began_s, applied = time.monotonic(), self._life.car.counts.applied
            self._send(self._life.car.drive(trip, time.time()))
            await self._settle()
            if self._life.car.counts.applied > applied:
                self._into.outcome_s.append((self._life.car.applied_at or began_s) - began_s)

    def leave(self) -> None:
        """Without a goodbye."""
        if self._link is not None:
            self._link.close()

    async def _settle(self) -> None:
        car = self._life.car
        while not car.is_settled:
            self._news.clear()
            lost = self._link.lost if self._link else asyncio.get_running_loop().create_future()
            waiting = asyncio.ensure_future(self._news.wait())
            await asyncio.wait(
                {waiting, lost}, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED
            )
            is_silent = not waiting.done()
            waiting.cancel()
            if lost.done():
                await self._reconnect()
            if is_silent:
                self._send(car.open_offers())
                if car.awaiting is not None and self._link is not None:
                    status = car.status(time.time(), online=True)
                    self._link.publish(topic(self._id, "status"), status, retain=True)

    async def _reconnect(self) -> None:
        delay_s = 0.05
        while True:
            try:
                await self.connect()
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, 2.0)
            else:
                self._into.reconnections += 1
                return

    def _heard(self, name: str, payload: bytes) -> None:
        _, kind = parse_topic(name)
        self._send(self._life.car.heard(kind, payload, time.monotonic()))
        if self._life.car.is_settled:
            self._news.set()

    def _send(self, offers: Sequence[Offer]) -> None:
        if self._link is not None:
            for offer in offers:
                self._link.publish(topic(self._id, offer.kind), offer.payload)


async def _drive_all(lives: Sequence[Life], port: int, go: Callable[[], Awaitable[None]]) -> Driven:
    found = Driven()
    drivers = [_Driver(life, port, found) for life in lives]
    turnstile = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def connect(driver: _Driver) -> None:
        async with turnstile:
            await driver.connect()

    await asyncio.gather(*map(connect, drivers))
    await go()
    found.began_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(driver.drive(found.began_s) for driver in drivers))
    found.ended_s, found.cpu_s = time.monotonic(), time.process_time() - cpu_s
    for driver, life in zip(drivers, lives, strict=True):
        driver.leave()
        _add(found, life.car)
    return found


def _add(found: Driven, car: ThinCar) -> None:
    vehicle_id, counts = car.who.vehicle_id, car.counts
    found.trips += [(vehicle_id, name) for name in counts.trips]
    found.breaches += [(vehicle_id, name) for name in counts.breaches]
    found.acknowledgements += len(counts.acknowledgements)
    found.applied += counts.applied
    found.refused += counts.refused
    found.declined += counts.declined


class Drivers:
    """A child process with thin cars: `wait_connected`, `go`, `result`; a context manager."""

    def __init__(self, make: Callable[..., Sequence[Life]], arguments: Any, port: int) -> None:
        """`make(arguments)` builds the cars over there: it must be a module's own function."""
        here, there = get_context("spawn").Pipe()
        self._pipe = here
        self._process = get_context("spawn").Process(
            target=_child, args=(make, arguments, port, there), daemon=True
        )
        self._process.start()
        there.close()

    def wait_connected(self) -> None:
        """Until every car has its subscriptions. Raises EOFError when the process has died."""
        self._pipe.recv()

    def go(self) -> None:
        """Drive."""
        self._pipe.send("go")

    def result(self) -> Driven:
        """What they saw, once they have all arrived. Raises EOFError."""
        found: Driven = self._pipe.recv()
        self._process.join()
        return found

    @property
    def driving(self) -> bool:
        """Whether a car is still on its way."""
        return self._process.is_alive() and not self._pipe.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _child(
    make: Callable[..., Sequence[Life]], arguments: Any, port: int, pipe: Connection
) -> None:
    lives = make(arguments)
    gc.freeze()  # what was built for the cars is not looked through again and again

    async def go() -> None:
        pipe.send("connected")
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    pipe.send(asyncio.run(_drive_all(lives, port, go)))
