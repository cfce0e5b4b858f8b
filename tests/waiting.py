"""Waiting for a condition with a deadline, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def eventually(
    predicate: Callable[[], object], deadline_s: float = 20.0, what: str = "the condition"
) -> None:
    """Return as soon as `predicate` is true; fail with `what` when the deadline passes first."""
    end_s = time.monotonic() + deadline_s
    while not predicate():
        if time.monotonic() > end_s:
            pytest.fail(f"{what} did not come true within {deadline_s:g} s")
        time.sleep(0.01)
