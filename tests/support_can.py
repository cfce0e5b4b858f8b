"""What the tests of the CAN source share: the sample DBC, a map of its signals, a bus of memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cantools
import msgspec

from edge_agent.config import Can, CanCheck, CanSignal, Derived, Source
from edge_agent.sources import Item
from edge_agent.sources.can_source import CanSource
from edge_agent.timekeeping.clock import Clock
from firmware_sim.can_frames import DBC, Encoder
from tests.support_edge import START, manifest_of

DATABASE: Any = cantools.database.load_file(DBC)
SIGNALS = {
    "voltage_v": CanSignal("CellVoltageMean"),
    "odometer": CanSignal("Odometer"),
    "load_kg": CanSignal("Load"),
    "ignition": CanSignal("Ignition"),
}
CHECKS = {
    "BMS_Pack": CanCheck("PackCounter", "PackCrc"),
    "Vehicle_Motion": CanCheck("MotionCounter", "MotionCrc"),
}
CAN = Can(dbc=str(DBC), signals=SIGNALS, checks=CHECKS)
MANIFEST = manifest_of(b"")
COLUMNS = Source(kind="can", derived={"distance_km": Derived("odometer")}, can=CAN)
VALUES = {
    "PackVoltage": 384.0,
    "PackCurrent": 10.0,
    "StateOfCharge": 80.0,
    "CellVoltageMin": 3.99,
    "CellVoltageMax": 4.01,
    "CellVoltageMean": 4.0,
    "CellTemperatureMin": 20.0,
    "CellTemperatureMax": 30.0,
    "CellTemperatureMean": 25.0,
    "CoolantTemperature": 20.0,
    "Speed": 72.0,
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
    is_extended_id: bool = False
    is_error_frame: bool = False
    is_remote_frame: bool = False


@dataclass
class Bench:
    """A source on a clock of its own, fed frame by frame."""

    now: float = 0.0
    unix_ahead: float = START
    encoder: Encoder = field(default_factory=Encoder)

    def source(self, **changes: Any) -> CanSource:
        can = msgspec.structs.replace(CAN, **changes)
        columns = msgspec.structs.replace(COLUMNS, can=can)
        clock = Clock(lambda: self.now + self.unix_ahead, lambda: self.now)
        return CanSource(can, columns, MANIFEST, DATABASE, (), clock)

    def message(self, name: str, **values: float) -> Frame:
        message = DATABASE.get_message_by_name(name)
        return Frame(message.frame_id, self.encoder.encode(message, VALUES | values))

    def everything(self, **values: float) -> list[Frame]:
        return [self.message(name, **values) for name in self.encoder.names]

    def play(self, source: CanSource, seconds: float, without: str = "") -> list[Item]:
        """A healthy bus for so long, one message left out perhaps."""
        found: list[Item] = []
        for _ in range(round(10 * seconds)):
            for name in self.encoder.names:
                if name != without:
                    source.frame(self.message(name))
            self.now = round(self.now + 0.1, 6)
            found += source.due()
        return found


@dataclass
class MemoryBus:
    """Stands for python-can's bus: frames in a queue, then silence or a failure."""

    bench: Bench
    waiting: deque[Frame]
    fails: bool = False
    filters: Any = None
    received: int = 0
    is_shut: bool = False

    def recv(self, timeout: float) -> Frame | None:
        if self.waiting:
            self.received += 1
            return self.waiting.popleft()
        if self.fails:
            raise OSError(100, "Network is down")
        self.bench.now += timeout or 0.001
        return None

    def shutdown(self) -> None:
        self.is_shut = True
        raise OSError(100, "Network is down")  # a bus that is gone cannot be closed either

    def set_filters(self, filters: Any) -> None:
        self.filters = filters
