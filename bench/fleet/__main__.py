"""`python -m bench.fleet [--quick] [--json] [--part NAME]`: the service under a fleet's load.

Must never measure anything itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from bench.figures import Figure, document, print_table
from bench.fleet.parts import PARTS, measure_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of everything, about a minute")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for part in options.part or PARTS:
        print(f"measuring {part} …", file=sys.stderr)
        figures += measure_of(part)(quick=options.quick)
    if options.quick:
        print("quick: goals on counts and on growth are for the full run", file=sys.stderr)
    if options.json:
        print(json.dumps(document(figures)))
    else:
        print_table("The service, measured on this machine", figures, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
