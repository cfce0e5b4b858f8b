"""Whether a value that somebody asks about is one that the model can be asked.

Pure. Must never let through what is not finite.
"""

from __future__ import annotations

import math

from common.errors import QuestionError
from common.manifest import Signal


def checked_value(where: str, value: float, declared: Signal) -> float:
    """`value`, when it is finite and inside the declared range. Raises QuestionError."""
    if not (math.isfinite(value) and declared.minimum <= value <= declared.maximum):
        limits = f"[{declared.minimum:g}, {declared.maximum:g}] {declared.unit}"
        raise QuestionError(where, f"outside {limits}")
    return value
