"""What the vehicle's clocks say: wall time, time since boot, which boot, and whether it was set.

Must never measure an interval with the wall clock: it jumps when time becomes known. What a wall
time is worth is for `stamps.py` to say.
"""

from __future__ import annotations

import ctypes
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")
LARGEST_ERROR_US: Final = 16_000_000  # what the kernel says of a clock that nobody has set
# No agent is older than its source: a clock that stands before this is wrong, whatever it says.
RELEASED_S: Final = 1_735_689_600.0  # 2025-01-01


@dataclass(frozen=True)
class Clock:
    """`unix` in seconds since 1970; `monotonic` in seconds since boot, asleep or not.

    `is_set`: whether the wall clock follows a time source; `boot_id` names this boot; before
    `not_before_s` (Unix time) it cannot be.
    """

    unix: Callable[[], float]
    monotonic: Callable[[], float]
    is_set: Callable[[], bool] = lambda: True
    boot_id: Callable[[], str] = lambda: "this boot"
    not_before_s: float = 0.0


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` (adjtimex(2)), and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def seconds_since_boot() -> float:
    """CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it goes on while the computer sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def is_synchronised() -> bool:
    """Whether a time source has set the clock in this boot, as the kernel or timesyncd tells it.

    Of the kernel the largest possible error is asked, not STA_UNSYNC: chrony leaves that flag set
    where nobody wants the kernel to write to the hardware clock.
    """
    return TIMESYNCD.exists() or 0 <= _largest_error_us() < LARGEST_ERROR_US


def _largest_error_us() -> int:
    """Microseconds; negative where nobody can say (another system, a sandbox)."""
    asked = _Timex()  # modes 0: nothing is changed
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        return -1
    return int(asked.maxerror) if state >= 0 else -1


def boot_id() -> str:
    """The kernel's name for this boot; where it has none, each process is taken for one."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return str(uuid.uuid4())


SYSTEM: Final = Clock(time.time, seconds_since_boot, is_synchronised, boot_id, RELEASED_S)
