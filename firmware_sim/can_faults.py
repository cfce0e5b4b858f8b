"""Faults of a bus on demand: what goes wrong, with which message, from when to when.

Pure. Must never draw from anything but the generator that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from firmware_sim.errors import SettingsError

LATE_S: Final = 0.5  # five frames of 100 ms: behind newer ones
BABBLED_PER_S: Final = 3000
BABBLED_IDS: Final = (0x700, 0x7FF)
_FORM: Final = re.compile(r"([a-z]+)(?::(\w+))?@(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")


class FaultKind(StrEnum):
    """What can go wrong."""

    DROP = "drop"
    STUCK = "stuck"
    FLIP = "flip"
    LATE = "late"
    BABBLE = "babble"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one message (or of all: empty), in seconds since the play began."""

    kind: FaultKind
    message: str
    start_s: float
    end_s: float

    def holds(self, message: str, time_s: float) -> bool:
        """Whether it acts on this message now."""
        return self.message in {"", message} and self.start_s <= time_s < self.end_s


def parse_fault(text: str, messages: Iterable[str]) -> Fault:
    """`KIND[:MESSAGE]@START..END`. Raises SettingsError."""
    found = _FORM.fullmatch(text)
    kinds = ", ".join(FaultKind)
    if found is None or found[1] not in set(FaultKind):
        remedy = f"write KIND[:MESSAGE]@START..END in seconds; a kind is one of {kinds}"
        raise SettingsError("fault", text, remedy)
    known = sorted(messages)
    if found[2] is not None and found[2] not in known:
        raise SettingsError("fault", text, f"the messages are {', '.join(known)}")
    fault = Fault(FaultKind(found[1]), found[2] or "", float(found[3]), float(found[4]))
    if fault.start_s >= fault.end_s:
        raise SettingsError("fault", text, "it must end after it begins")
    return fault


def active(faults: Iterable[Fault], kind: FaultKind, message: str, time_s: float) -> bool:
    """Whether a fault of this kind acts on this message now."""
    return any(fault.kind is kind and fault.holds(message, time_s) for fault in faults)


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """The frame with one bit turned."""
    bit = int(rng.integers(8 * len(data)))
    wrong = bytearray(data)
    wrong[bit // 8] ^= 1 << bit % 8
    return bytes(wrong)


def babbled(seconds: float, rng: np.random.Generator) -> list[tuple[int, bytes]]:
    """What a broken node sends in so long a time: identifiers that nobody knows."""
    number = round(BABBLED_PER_S * seconds)
    identifiers = rng.integers(*BABBLED_IDS, endpoint=True, size=number)
    return [(int(identifier), rng.bytes(8)) for identifier in identifiers]
