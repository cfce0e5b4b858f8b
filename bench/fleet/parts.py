"""The parts of the bench, in the order in which they run.

Must never import a part before it is asked for: one that needs a library of its own must not keep
the others from running.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from bench.figures import Figure

PARTS: tuple[str, ...] = ("scale", "recalibrations", "summaries", "memory", "payloads", "kills")


class Measure(Protocol):
    """What every part offers."""

    def __call__(self, *, quick: bool) -> list[Figure]:
        """Its figures; `quick` within some ten seconds."""


def measure_of(part: str) -> Measure:
    """The part's `measure`."""
    return cast("Measure", import_module(f"bench.fleet.{part}").measure)
