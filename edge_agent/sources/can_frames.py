"""Frames of a CAN bus, read with a DBC: values by the agent's names, and what was not believed.

Pure apart from its memory of the counters. Must never believe a frame of another length, a number
that is none or outside the DBC's range, a wrong checksum, or a counter that stands still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from edge_agent.config import Can, CanCheck, CanSignal
from edge_agent.errors import CanSetupError

CRC_POLYNOMIAL: Final = 0x1D  # CRC-8 SAE J1850; start and final XOR 0xFF
BITS: Final = 8
ONE_BIT: Final = 2  # a counter that only toggles cannot tell late from lost
Key = tuple[int, bool]  # identifier, and whether it is an extended one


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a frame: the name it is counted by, and a sentence."""

    name: str
    reason: str


@dataclass(slots=True)
class Reading:
    """What a frame says: values by the agent's names, and its troubles."""

    values: dict[str, float] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)


@dataclass(slots=True)
class _Message:
    """A message of the DBC that somebody wants, with the counter seen last and when."""

    dbc: Any
    wanted: list[tuple[str, CanSignal, Any]] = field(default_factory=list)
    check: CanCheck | None = None
    counter: int | None = None
    counted_at_s: float = -math.inf


class FrameReader:
    """Reads the frames that carry what `can.signals` names. Raises CanSetupError."""

    def __init__(self, database: Any, can: Can) -> None:
        self._stale_s = can.stale_s
        self._messages: dict[Key, _Message] = {}
        self._known = {_key(message) for message in database.messages}
        for name, wanted in can.signals.items():
            message = _carrier(database, name, wanted)
            signal = message.get_signal_by_name(wanted.signal)
            self._entry(message).wanted.append((name, wanted, signal))
        for message_name, check in can.checks.items():
            self._add_check(database, message_name, check)

    def identifiers(self) -> list[Key]:
        """Of the frames that matter."""
        return list(self._messages)

    def read(self, key: Key, data: bytes, now_s: float) -> Reading:
        """One frame. Never raises."""
        message = self._messages.get(key)
        if message is None and key in self._known:
            return Reading()  # of the car, and nobody here needs it
        if message is None:
            return Reading(troubles=[Trouble("can_unknown_id", f"the DBC knows no {key[0]:#x}")])
        name = message.dbc.name
        if len(data) != message.dbc.length:
            told = f"{name} has {len(data)} bytes, the DBC says {message.dbc.length}"
            return Reading(troubles=[Trouble(f"can_wrong_length:{name}", told)])
        if message.check is not None and message.check.crc and not _is_whole(message, data):
            told = f"the checksum of {name} is wrong"
            return Reading(troubles=[Trouble(f"can_bad_crc:{name}", told)])
        try:
            found = message.dbc.decode(data, decode_choices=False)
        except Exception as error:  # noqa: BLE001 - whatever cantools says of a hostile frame
            return Reading(troubles=[Trouble(f"can_undecodable:{name}", f"{name}: {error}")])
        return _believed(message, found, now_s, self._stale_s)

    def _entry(self, message: Any) -> _Message:
        return self._messages.setdefault(_key(message), _Message(message))

    def _add_check(self, database: Any, name: str, check: CanCheck) -> None:
        message = _found(database, name)
        for signal_name in filter(None, (check.counter, check.crc)):
            if all(signal.name != signal_name for signal in message.signals):
                raise CanSetupError(f"checks.{name}: it has no signal {signal_name}")
        if check.crc:
            crc = message.get_signal_by_name(check.crc)
            if crc.length != BITS or crc.start % BITS != (
                7 if crc.byte_order == "big_endian" else 0
            ):
                raise CanSetupError(f"checks.{name}: {check.crc} is no byte of its own")
        self._entry(message).check = check


def _key(message: Any) -> Key:
    return int(message.frame_id), bool(message.is_extended_frame)


def crc8(data: bytes) -> int:
    """CRC-8 SAE J1850, as AUTOSAR's Crc_CalculateCRC8."""
    found = 0xFF
    for byte in data:
        found ^= byte
        for _ in range(BITS):
            found = ((found << 1) ^ CRC_POLYNOMIAL if found & 0x80 else found << 1) & 0xFF
    return found ^ 0xFF


def _believed(message: _Message, found: dict[str, float], now_s: float, stale_s: float) -> Reading:
    reading = Reading()
    if message.check is not None and message.check.counter:
        trouble = _counted(message, int(found[message.check.counter]), now_s, stale_s)
        if trouble is not None:
            reading.troubles.append(trouble)
            if not trouble.name.startswith("can_lost"):
                return reading
    for name, wanted, signal in message.wanted:
        if wanted.signal not in found:  # another page of a multiplexed message
            continue
        value = float(found[wanted.signal])
        trouble = _implausible(name, value, signal)
        if trouble is not None:
            reading.troubles.append(trouble)
        else:
            reading.values[name] = wanted.scale * value + wanted.offset
    return reading


def _counted(message: _Message, counter: int, now_s: float, stale_s: float) -> Trouble | None:
    """A counter that stands still or goes back; after a silence any counter is a beginning."""
    before, silent_s = message.counter, now_s - message.counted_at_s
    size = 1 << message.dbc.get_signal_by_name(message.check.counter).length  # type: ignore[union-attr]
    ahead = 1 if before is None or silent_s > stale_s else (counter - before) % size
    name = message.dbc.name
    if ahead == 0:
        return Trouble(f"can_repeated:{name}", f"{name} comes again with counter {counter}")
    if ahead >= size // 2 and size > ONE_BIT:
        return Trouble(f"can_late:{name}", f"{name} comes with counter {counter} after {before}")
    message.counter, message.counted_at_s = counter, now_s
    if ahead > 1:
        told = f"{ahead - 1} frames of {name} are missing before counter {counter}"
        return Trouble(f"can_lost_before:{name}", told)
    return None


def _implausible(name: str, value: float, signal: Any) -> Trouble | None:
    if not math.isfinite(value):
        return Trouble(f"can_not_a_number:{name}", f"{signal.name} is {value}")
    low = -math.inf if signal.minimum is None else float(signal.minimum)
    high = math.inf if signal.maximum is None else float(signal.maximum)
    if not low <= value <= high:
        told = f"{signal.name} is {value:g}, the DBC says {low:g} to {high:g}"
        return Trouble(f"can_out_of_range:{name}", told)
    return None


def _is_whole(message: _Message, data: bytes) -> bool:
    crc = message.dbc.get_signal_by_name(message.check.crc)  # type: ignore[union-attr]
    at = int(crc.start) // BITS
    return crc8(data[:at] + data[at + 1 :]) == data[at]


def _found(database: Any, message_name: str) -> Any:
    try:
        return database.get_message_by_name(message_name)
    except KeyError as error:
        raise CanSetupError(f"the DBC has no message {message_name}") from error


def _carrier(database: Any, name: str, wanted: CanSignal) -> Any:
    """The one message that carries the signal."""
    messages = [_found(database, wanted.message)] if wanted.message else database.messages
    carriers = [m for m in messages if any(s.name == wanted.signal for s in m.signals)]
    if not carriers:
        where = wanted.message or "the DBC"
        raise CanSetupError(f"signals.{name}: {where} has no signal {wanted.signal}")
    if len(carriers) > 1:
        several = ", ".join(m.name for m in carriers)
        raise CanSetupError(
            f"signals.{name}: {wanted.signal} stands in {several}; say which as `message`"
        )
    return carriers[0]
