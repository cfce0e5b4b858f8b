"""`python -m bench [--quick] [--json]`: every bench in turn."""

from __future__ import annotations

import sys

from bench.choices import main as choices
from bench.recalibration import main as recalibration

if __name__ == "__main__":
    sys.exit(recalibration() or choices())
