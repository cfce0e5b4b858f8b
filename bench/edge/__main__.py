"""`python -m bench.edge [--quick] [--json] [--part NAME]`: the agent's figures beside their goals.

Must never measure anything itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.parts import Bench, run

BENCH = Bench(
    "bench.edge",
    (
        "footprint",
        "sampling",
        "durability",
        "kills",
        "power_cuts",
        "chaos",
        "drain",
        "reconnects",
        "fuzzing",
        "local",
    ),
    "The agent, measured on this machine",
    "some four minutes",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run(BENCH, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
