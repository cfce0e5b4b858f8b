"""Two clocks: one for stamps that leave the vehicle, one for intervals.

Must never measure an interval with the first: a vehicle's wall clock jumps when time becomes known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Clock:
    """`unix` in seconds since 1970; `monotonic` in seconds since whenever."""

    unix: Callable[[], float]
    monotonic: Callable[[], float]


SYSTEM: Final = Clock(time.time, time.monotonic)
