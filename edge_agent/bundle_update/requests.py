"""When the next chunks are asked for: a few at a time, slowly, and ever less often without answer.

Times are monotonic seconds. AWS IoT Core takes 512 kB/s of a connection; the car's own messages
come first. Must never have more than one request open.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from edge_agent.bundle_update.chunk_store import Wanted

WINDOW: Final = 4
BYTES_PER_S: Final = 256 * 1024
FIRST_PATIENCE_S: Final = 5.0
LONGEST_PATIENCE_S: Final = 600.0


class Requests:
    """The pace of one download."""

    def __init__(self, chunk_bytes: int, jitter: random.Random) -> None:
        self._chunk_bytes, self._jitter = chunk_bytes, jitter
        self._open: set[Wanted] = set()
        self._next_s = float("-inf")
        self._patience_s = FIRST_PATIENCE_S
        self._give_up_s = 0.0

    def due(self, missing: Sequence[Wanted], now: float) -> list[Wanted]:
        """The chunks of one file to ask for now; empty: not yet, or none is missing."""
        if self._open and now >= self._give_up_s:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
            self._open.clear()
        if self._open or not missing or now < self._next_s:
            return []
        wanted = list(takewhile(lambda chunk: chunk[0] == missing[0][0], missing[:WINDOW]))
        self._open = set(wanted)
        self._next_s = now + len(wanted) * self._chunk_bytes / BYTES_PER_S
        self._give_up_s = now + self._patience_s * self._jitter.uniform(1.0, 1.5)
        return wanted

    def came(self, chunk: Wanted, *, is_good: bool) -> None:
        """An answer: a good one makes patient requests eager again."""
        self._open.discard(chunk)
        if is_good:
            self._patience_s = FIRST_PATIENCE_S

    def reconnected(self) -> None:
        """What was asked on the connection before may be lost."""
        self._open.clear()
        self._patience_s = FIRST_PATIENCE_S
