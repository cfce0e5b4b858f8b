"""Play a vehicle onto a CAN bus: which frame at which moment, and the sending itself.

`frames` is pure and seeded; `play` keeps the time. Must never stop for a bus that refuses a frame:
it counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from firmware_sim.can_faults import LATE_S, Fault, FaultKind, active, babbled, flipped
from firmware_sim.can_frames import TICK_S, Encoder
from firmware_sim.can_vehicle import BusTrip

_BABBLER: Final = ""


@dataclass(frozen=True, slots=True, order=True)
class Frame:
    """What goes onto the bus, so many seconds after the play began."""

    time_s: float
    number: int
    identifier: int
    data: bytes


@dataclass(frozen=True)
class Played:
    """What a play came to."""

    trips: int
    frames: int
    refused: int


def frames(
    trips: Sequence[BusTrip],
    speed_up: float,
    pause_s: float,
    faults: Sequence[Fault],
    seed: int,
) -> Iterator[Frame]:
    """Every frame in the order of time; a pause of the ignition follows each trip."""
    encoder, rng = Encoder(), np.random.default_rng(seed)
    waiting: list[Frame] = []
    number = 0
    held: dict[str, dict[str, float]] = {}
    for tick, values in enumerate(_moments(trips, speed_up, pause_s)):
        now_s = tick * TICK_S
        for message in encoder.due(tick):
            own = values
            if active(faults, FaultKind.STUCK, message.name, now_s):
                own = held.setdefault(message.name, values)
            else:
                held.pop(message.name, None)
            data = encoder.encode(message, own)
            if active(faults, FaultKind.DROP, message.name, now_s):
                continue
            if active(faults, FaultKind.FLIP, message.name, now_s):
                data = flipped(data, rng)
            late = active(faults, FaultKind.LATE, message.name, now_s)
            number += 1
            due_s = now_s + (LATE_S if late else 0.0)
            heapq.heappush(waiting, Frame(due_s, number, int(message.frame_id), data))
        if active(faults, FaultKind.BABBLE, _BABBLER, now_s):
            for identifier, data in babbled(TICK_S, rng):
                number += 1
                heapq.heappush(waiting, Frame(now_s, number, identifier, data))
        while waiting and waiting[0].time_s <= now_s:
            yield heapq.heappop(waiting)
    yield from sorted(waiting)


def play(
    planned: Iterable[Frame],
    send: Callable[[Frame], None],
    monotonic: Callable[[], float],
    sleep: Callable[[float], object],
) -> tuple[int, int]:
    """Send each frame when its time has come; how many were sent, and how many the bus refused."""
    began_s = monotonic()
    sent = refused = 0
    for frame in planned:
        ahead_s = frame.time_s - (monotonic() - began_s)
        if ahead_s > 0:
            sleep(ahead_s)
        try:
            send(frame)
            sent += 1
        except OSError:
            refused += 1
    return sent, refused


def sender(bus: Any, message_type: Any, error_type: type[Exception]) -> Callable[[Frame], None]:
    """How a frame is sent with python-can."""

    def send(frame: Frame) -> None:
        message = message_type(
            arbitration_id=frame.identifier, data=frame.data, is_extended_id=False
        )
        try:
            bus.send(message)
        except error_type as error:
            raise OSError(str(error)) from error

    return send


def _moments(
    trips: Sequence[BusTrip], speed_up: float, pause_s: float
) -> Iterator[dict[str, float]]:
    """The car's signals, one tick after the other."""
    rest = round(pause_s / TICK_S)
    for trip in trips:
        ticks = int(trip.duration_s / speed_up / TICK_S)
        for tick in range(ticks + 1):
            yield trip.at(tick * TICK_S * speed_up)
        for tick in range(1, rest + 1):
            yield trip.parked(tick * TICK_S)
