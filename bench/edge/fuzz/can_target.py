"""Frames of a CAN bus with any identifier, length, content, flags and moment, through the source.

Promised: nothing raises; a sample holds finite numbers inside the DBC's ranges; what is counted
and kept stays bounded, whatever comes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any, Final

import cantools

from bench.edge.fuzz.target import Plain, Target, promise
from bench.edge.fuzz.vehicle import START, the_vehicle
from edge_agent.config import Can, CanCheck, CanSignal, Derived, Source
from edge_agent.samples import Sample
from edge_agent.sources import Item, Skipped
from edge_agent.sources.can_frames import crc8
from edge_agent.sources.can_source import CanSource
from edge_agent.timekeeping.clock import Clock
from firmware_sim.can_frames import DBC, Encoder

EXTENDED, ERROR, REMOTE = 1, 2, 4
LATER_S: Final = (0.0, 0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 40.0, 100.0, 1e6)
CLOCK_S: Final = (0.0, 0.0, 0.0, 1.0, -1.0, 3600.0, -1e9, 1e9, 1e12, -2e9)
MOST_FRAMES: Final = 24
MOST_KINDS: Final = 100  # of trouble, told in one report: there are so many signals and messages
SILENCE_S: Final = 1000.0
LONGEST_S: Final = 1e8
HEAD: Final = struct.Struct("<BBBIB")  # flags, moment, clock, identifier, length
# With a name for every signal of the DBC that is no counter, so that each is decoded and checked.
RENAMED: Final = {
    "CellVoltageMean": "voltage_v",
    "Odometer": "odometer",
    "Load": "load_kg",
    "Ignition": "ignition",
}
CHECKS: Final = {
    "BMS_Pack": CanCheck("PackCounter", "PackCrc"),
    "Vehicle_Motion": CanCheck("MotionCounter", "MotionCrc"),
}
VALUES: Final = {
    **dict.fromkeys(("PackVoltage", "Speed"), 72.0),
    **dict.fromkeys(("PackCurrent", "StateOfCharge"), 50.0),
    **dict.fromkeys(("CellVoltageMin", "CellVoltageMax", "CellVoltageMean"), 4.0),
    **dict.fromkeys(("CellTemperatureMin", "CellTemperatureMax"), 20.0),
    **dict.fromkeys(("CellTemperatureMean", "CoolantTemperature"), 25.0),
    "Ignition": 1.0,
    "Odometer": 1000.0,
    "Load": 500.0,
    "UnixTime": START,
}


@dataclass
class Frame:
    """As python-can has it."""

    arbitration_id: int
    data: bytes
    is_extended_id: bool
    is_error_frame: bool
    is_remote_frame: bool


@dataclass(frozen=True)
class _Bus:
    database: Any
    can: Can
    columns: Source
    ranges: dict[str, tuple[float, float]]
    identifiers: tuple[int, ...]


def target() -> Target:
    """Seeds: a healthy second of the bus; single frames of each kind."""
    encoder = Encoder()
    healthy = [
        _Record(message.frame_id, encoder.encode(message, VALUES), moment=1).packed()
        for tick in range(10)
        for message in encoder.due(tick)
    ]
    last = _Record(0x7FF, b"", moment=7).packed()
    seeds = (b"".join(healthy[:20]) + last, *healthy[:6], last)
    return Target("can", seeds, _mutate, check)


def check(data: bytes) -> None:
    """Play the frames to the source after a silence: nothing of the input before is still fresh."""
    _player().play(data)


class _Player:
    """One source for all inputs, on a clock of its own: to build one costs more than an input."""

    def __init__(self) -> None:
        self._now_s, self._ahead_s = 0.0, START
        clock = Clock(lambda: self._now_s + self._ahead_s, lambda: self._now_s)
        self._bus = bus = _bus()
        manifest = the_vehicle().who.manifest
        self._source = CanSource(bus.can, bus.columns, manifest, bus.database, (), clock)

    def play(self, data: bytes) -> None:
        self._now_s, self._ahead_s = math.floor(self._now_s) + SILENCE_S, START
        kinds = set(self._kinds())
        for record in _records(data):
            frame, later_s, jump_s = record.played()
            self._source.frame(frame)
            self._now_s += later_s
            self._ahead_s += jump_s
            kinds.update(self._kinds())
        promise(len(kinds) <= MOST_KINDS, f"{len(kinds)} kinds of trouble")

    def is_old(self) -> bool:
        """Whether its seconds have become coarse."""
        return self._now_s > LONGEST_S

    def _kinds(self) -> list[str]:
        """The kinds of trouble that were told; samples are checked."""
        items = list(self._source.due())
        for item in items:
            _check_item(item, self._bus)
        return [kind for item in items if isinstance(item, Skipped) for kind in item.counts]


def _player() -> _Player:
    if _first_player().is_old():
        _first_player.cache_clear()
    return _first_player()


@cache
def _first_player() -> _Player:
    return _Player()


def _check_item(item: Item, bus: _Bus) -> None:
    if isinstance(item, Skipped):
        promise(all(number > 0 for number in item.counts.values()), "a count that counts nothing")
    elif isinstance(item, Sample):
        numbers = {**item.signals, "voltage_v": item.voltage_v, "odometer": item.odometer}
        for name, value in numbers.items():
            low, high = bus.ranges[name]
            promise(math.isfinite(value), f"{name} is {value}")
            promise(low <= value <= high, f"{name} is {value}, the DBC says {low} to {high}")


@cache
def _bus() -> _Bus:
    database: Any = cantools.database.load_file(DBC)
    signals: dict[str, CanSignal] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for message in database.messages:
        for signal in message.signals:
            if signal.name.endswith(("Counter", "Crc", "Index", "UnixTime")):
                continue
            name = RENAMED.get(signal.name, signal.name)
            signals[name] = CanSignal(signal.name)
            ranges[name] = (float(signal.minimum), float(signal.maximum))
    can = Can(dbc=str(DBC), signals=signals, checks=CHECKS)
    columns = Source(kind="can", derived={"distance_km": Derived("odometer")}, can=can)
    identifiers = tuple(int(message.frame_id) for message in database.messages)
    return _Bus(database, can, columns, ranges, identifiers)


@dataclass(frozen=True)
class _Record:
    """A frame and what follows it, as it stands in an input."""

    identifier: int
    data: bytes
    moment: int = 0
    clock: int = 0
    flags: int = 0

    def packed(self) -> bytes:
        head = (self.flags, self.moment, self.clock, self.identifier, len(self.data))
        return HEAD.pack(*head) + self.data

    def played(self) -> tuple[Frame, float, float]:
        """The frame, by how much later the next one comes, by how much the clock is set."""
        extended, error, remote = (bool(self.flags & flag) for flag in (EXTENDED, ERROR, REMOTE))
        frame = Frame(self.identifier, self.data, extended, error, remote)
        return frame, LATER_S[self.moment % len(LATER_S)], CLOCK_S[self.clock % len(CLOCK_S)]


def _records(data: bytes) -> list[_Record]:
    """Until the bytes run out; the last one may be cut."""
    found: list[_Record] = []
    at = 0
    while at + HEAD.size <= len(data) and len(found) < MOST_FRAMES:
        flags, moment, clock, identifier, length = HEAD.unpack_from(data, at)
        at += HEAD.size + length
        found.append(_Record(identifier, data[at - length : at], moment, clock, flags))
    return found


def _mutate(data: bytes, random: Random, plain: Plain) -> bytes:
    """Frame by frame as a rule."""
    records = _records(data)
    if not records or random.randrange(3) == 0:
        return plain(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(records))
        records[at : at + 1] = _altered(records[at], random)
    return b"".join(record.packed() for record in records[:MOST_FRAMES])


def _altered(record: _Record, random: Random) -> tuple[_Record, ...]:
    """What stands in the frame's place: itself otherwise, or twice."""
    match random.randrange(8):
        case 0:
            others = (0, 0x7FF, random.getrandbits(29), 2**32 - 1)
            return (replace(record, identifier=random.choice((*_bus().identifiers, *others))),)
        case 1:
            length = random.choice((0, 1, 4, 6, 7, 8, 8, 9, 64, 255))
            return (replace(record, data=random.randbytes(length)),)
        case 2:
            moment, flags = random.randrange(len(LATER_S)), random.randrange(8)
            return (replace(record, moment=moment, flags=flags),)
        case 3:
            return (replace(record, clock=random.randrange(len(CLOCK_S))),)
        case 4:
            return (record, record)
        case _:
            return (replace(record, data=_other_content(record.data, random)),)


def _other_content(data: bytes, random: Random) -> bytes:
    """Half of the altered contents get a checksum that fits."""
    content = bytearray(data or b"\x00")
    for _ in range(random.randint(1, 3)):
        value = random.choice((0, 0xFF, 0x7F, 0x80, random.randrange(256)))
        content[random.randrange(len(content))] = value
    if random.randrange(2):
        content[-1] = crc8(bytes(content[:-1]))
    return bytes(content)
