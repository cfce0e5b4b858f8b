"""The command line of a bench that has parts, each a module with its own `measure`.

Must never measure anything itself, nor import a part before it is asked for: one that needs a
library of its own must not keep the others from running.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from rich.console import Console

from bench.figures import Figure, document, print_table


class Measure(Protocol):
    """What every part offers."""

    def __call__(self, *, quick: bool) -> list[Figure]:
        """Its figures; `quick` within some ten seconds."""


@dataclass(frozen=True)
class Bench:
    """A package of parts, in the order in which they run; `quick` says what `--quick` costs."""

    package: str
    parts: tuple[str, ...]
    title: str
    quick: str

    def measure_of(self, part: str) -> Measure:
        """The part's `measure`."""
        return cast("Measure", import_module(f"{self.package}.{part}").measure)


def run(bench: Bench, told: str | None, arguments: Sequence[str] | None) -> int:
    """Measure what is asked for; `told` is the description of the command."""
    parser = argparse.ArgumentParser(prog=f"python -m {bench.package}", description=told)
    parser.add_argument("--quick", action="store_true", help=f"few of everything, {bench.quick}")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument(
        "--part", action="append", choices=bench.parts, help="only this; may be repeated"
    )
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for part in options.part or bench.parts:
        print(f"measuring {part} …", file=sys.stderr)
        figures += bench.measure_of(part)(quick=options.quick)
    if options.quick:
        print("quick: goals on counts and on growth are for the full run", file=sys.stderr)
    if options.json:
        print(json.dumps(document(figures)))
    else:
        print_table(bench.title, figures, Console())
    return 0
