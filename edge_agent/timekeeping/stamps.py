"""When something happened, on a computer that may not know the time: boot, seconds since it, wall.

Pure. Boot and seconds give the order. Must never call a wall time known that is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """In the order of the fields: the boot's number, seconds since it, Unix time, known or not."""

    boot: int
    monotonic_s: float
    unix_s: float
    is_known: bool

    def unix_if_known(self) -> float:
        """Unix time, or 0."""
        return self.unix_s if self.is_known else 0.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """One moment of a boot at which the wall time was known."""

    unix_s: float
    monotonic_s: float

    def unix_at(self, monotonic_s: float) -> float:
        """The Unix time of another moment of the same boot."""
        return max(self.unix_s + monotonic_s - self.monotonic_s, 0.0)
