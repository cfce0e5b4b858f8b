"""What a new forecast means for a vehicle's task: propose, re-date, withdraw, or leave it.

Pure. Must never move a date for what is within the forecast's own scatter, nor propose again what
a person has settled, unless it comes clearly earlier than they knew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Decision = Literal["propose", "redate", "withdraw", "leave"]

WITHDRAWN_ABOVE: Final = 0.6
"""Proposed from an even chance on, withdrawn only below 40 %: so that it does not flicker."""
MATERIAL: Final = 0.25
"""A move by this share of the 10-90 % interval is material."""


@dataclass(frozen=True)
class Span:
    """A median with its 10 % and 90 % ends; None: beyond what was looked at."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Crossing:
    """Where health falls to the limit, and when (UNIX seconds); `never_share` of the paths not."""

    odometer: Span
    at: Span
    never_share: float = 0.0


def decide(new: Crossing, proposed: Crossing | None, settled: Crossing | None) -> Decision:
    """Given the proposed task's crossing, if there is one, and that of the last one settled."""
    if proposed is not None:
        if new.at.value is None:
            return "withdraw" if new.never_share > WITHDRAWN_ABOVE else "leave"
        moved = has_moved(proposed.at, new.at) or has_moved(proposed.odometer, new.odometer)
        return "redate" if moved else "leave"
    if new.at.value is None:
        return "leave"
    return "propose" if settled is None or _is_earlier(settled.odometer, new.odometer) else "leave"


def has_moved(old: Span, new: Span) -> bool:
    """Whether the median moved by more than MATERIAL of the old interval."""
    if old.value is None or new.value is None:
        return old.value != new.value
    return abs(new.value - old.value) > MATERIAL * _width(old)


def _is_earlier(old: Span, new: Span) -> bool:
    if old.value is None or new.value is None:
        return False
    return new.value < old.value and has_moved(old, new)


def _width(span: Span) -> float:
    """Where the upper end is open, twice the lower half."""
    if span.value is None or span.low is None:
        return 0.0
    return span.high - span.low if span.high is not None else 2 * (span.value - span.low)
