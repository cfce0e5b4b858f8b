"""The frames of the sample DBC: values in, bytes out, with counters and checksums as BMS send them.

Must never send a value that the DBC excludes: a sensor at its end shows its end.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final

from firmware_sim.errors import ExtraMissingError

DBC: Final = Path(__file__).resolve().parent / "can" / "bms.dbc"
TICK_S: Final = 0.1
SLOW_TICKS: Final = {"BMS_Temperatures": 5, "Vehicle_Load": 5}
COUNTERS: Final = {"BMS_Pack": "PackCounter", "Vehicle_Motion": "MotionCounter"}
CHECKSUMS: Final = {"BMS_Pack": "PackCrc", "Vehicle_Motion": "MotionCrc"}
PAGES: Final = {"BMS_Temperatures": ("TemperatureIndex", 2)}
CRC_TABLE: Final = tuple(
    reduce(lambda crc, _: ((crc << 1) ^ 0x1D if crc & 0x80 else crc << 1) & 0xFF, range(8), byte)
    for byte in range(256)
)


class Encoder:
    """Frames of every message of the DBC, in the order of the file."""

    def __init__(self) -> None:
        """Raises ExtraMissingError without cantools."""
        try:
            cantools: Any = importlib.import_module("cantools")
        except ImportError as error:
            raise ExtraMissingError("cantools", "sim") from error
        self._messages = cantools.database.load_file(DBC).messages
        self._sent: Counter[str] = Counter()

    @property
    def names(self) -> list[str]:
        """Of the messages."""
        return [message.name for message in self._messages]

    def due(self, tick: int) -> list[Any]:
        """The messages that are sent at this tick."""
        return [m for m in self._messages if tick % SLOW_TICKS.get(m.name, 1) == 0]

    def encode(self, message: Any, values: Mapping[str, float]) -> bytes:
        """The next frame of this message."""
        name, sent = message.name, self._sent[message.name]
        self._sent[name] += 1
        own = dict(values)
        if name in COUNTERS:
            own[COUNTERS[name]] = sent % 16
        if name in CHECKSUMS:
            own[CHECKSUMS[name]] = 0
        if name in PAGES:
            own[PAGES[name][0]] = sent % PAGES[name][1]
        within = {s.name: _within(own[s.name], s) for s in message.signals if s.name in own}
        page = within.get(PAGES[name][0]) if name in PAGES else None
        wanted = {
            s.name: within[s.name]
            for s in message.signals
            if not s.multiplexer_ids or page in s.multiplexer_ids
        }
        data: bytes = message.encode(wanted)
        return data[:-1] + bytes([crc8(data[:-1])]) if name in CHECKSUMS else data


def crc8(data: bytes) -> int:
    """CRC-8 SAE J1850."""
    found = 0xFF
    for byte in data:
        found = CRC_TABLE[found ^ byte]
    return found ^ 0xFF


def _within(value: float, signal: Any) -> float:
    return min(max(value, float(signal.minimum)), float(signal.maximum))
