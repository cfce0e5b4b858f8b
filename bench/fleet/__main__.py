"""`python -m bench.fleet [--quick] [--json] [--part NAME]`: the service under a fleet's load.

Must never measure anything itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.parts import Bench, run

BENCH = Bench(
    "bench.fleet",
    ("scale", "recalibrations", "summaries", "statuses", "memory", "payloads", "kills"),
    "The service, measured on this machine",
    "about a minute",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run(BENCH, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
