"""A sample of what came at different rates: the freshest value of each signal, at a fixed interval.

Pure. Must never use a value that is older than its limit: then there is no sample, and the signal
is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """What is fresh at one moment, what of the needed is not, and what has just become stale."""

    values: dict[str, float]
    missing: tuple[str, ...]
    newly_stale: tuple[str, ...]


class Sampler:
    """Of signals, each with the age up to which it counts."""

    def __init__(self, stale_s: Mapping[str, float], needed: Iterable[str], now_s: float) -> None:
        self._stale_s = stale_s
        self._needed = tuple(needed)
        self._values: dict[str, float] = {}
        self._came_s = dict.fromkeys(stale_s, now_s)
        self._stale: set[str] = set()

    def take(self, values: Mapping[str, float], now_s: float) -> None:
        """What a frame said."""
        self._values.update(values)
        self._came_s.update(dict.fromkeys(values, now_s))

    def moment(self, now_s: float) -> Moment:
        """What can be said now. A signal is newly stale once for each time it stays away."""
        age_s = {name: now_s - came_s for name, came_s in self._came_s.items()}
        stale = {name for name, limit_s in self._stale_s.items() if age_s[name] > limit_s}
        newly = tuple(sorted(stale - self._stale))
        self._stale = stale
        fresh = {n: v for n, v in self._values.items() if n not in stale and math.isfinite(v)}
        missing = tuple(name for name in self._needed if name not in fresh)
        return Moment(fresh, missing, newly)
