"""Token buckets: how often somebody may come, in memory, of this process alone.

Bounded: of very many callers those that came longest ago are forgotten, and begin with a full
bucket again. Must never be used from two threads.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MOST_CALLERS: Final = 10_000


@dataclass(frozen=True)
class Rate:
    """So many a second on average, and so many at once."""

    per_s: float
    burst: int


@dataclass(frozen=True)
class Taken:
    """What taking one came to: `wait_s` is 0 where it was there; `left` are there still."""

    wait_s: float
    left: int


class Buckets:
    """One bucket for each name."""

    def __init__(self, rate: Rate, most: int = MOST_CALLERS) -> None:
        self.rate = rate
        self._most = most
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, when

    def take(self, name: str, now: float) -> Taken:
        """Take one if it is there. `now` in seconds of a clock that never goes back."""
        level = self._level(name, now)
        taken = level >= 1.0
        if taken:
            level -= 1.0
        self._filled[name] = (level, now)
        self._filled.move_to_end(name)
        if len(self._filled) > self._most:
            self._filled.popitem(last=False)
        return Taken(0.0 if taken else (1.0 - level) / self.rate.per_s, int(level))

    def wait_s(self, name: str, now: float) -> float:
        """Until there is one to take; takes none."""
        return max(0.0, (1.0 - self._level(name, now)) / self.rate.per_s)

    def __len__(self) -> int:
        return len(self._filled)

    def _level(self, name: str, now: float) -> float:
        level, at = self._filled.get(name, (float(self.rate.burst), now))
        return min(float(self.rate.burst), level + (now - at) * self.rate.per_s)
