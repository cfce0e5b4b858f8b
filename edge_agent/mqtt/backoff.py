"""When to try the broker again: exponential, capped, full jitter.

Pure but for the random numbers, which are passed in. Must never let a fleet return in step: the
delay is drawn anew from the whole interval each time ("Exponential Backoff And Jitter", M. Brooker,
AWS Architecture Blog, 2015: random between 0 and min(cap, base · 2^attempt)).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

STABLE_S = 10.0
"""A connection that lived as long was a good one; a shorter one counts as a failed attempt."""
MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Delays:
    """The first and the longest interval to draw from; longer ones where the broker refuses us."""

    first_s: float = 0.5
    longest_s: float = 60.0
    refused_first_s: float = 30.0
    refused_longest_s: float = 900.0


DELAYS = Delays()


class Backoff:
    """One vehicle's attempts in a row."""

    def __init__(self, jitter: random.Random, delays: Delays) -> None:
        self._jitter, self._delays = jitter, delays
        self._attempt = 0

    def next_delay_s(self, lasted_s: float, *, refused: bool) -> float:
        """How long to wait after a connection that lasted so long (0: none came about)."""
        if lasted_s >= STABLE_S:
            self._attempt = 0
        delays = self._delays
        first_s = delays.refused_first_s if refused else delays.first_s
        longest_s = delays.refused_longest_s if refused else delays.longest_s
        interval_s = min(longest_s, first_s * 2 ** min(self._attempt, MOST_DOUBLINGS))
        self._attempt += 1
        return self._jitter.uniform(0.0, interval_s)
