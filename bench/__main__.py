"""`python -m bench`: every bench in turn, quick."""

from __future__ import annotations

from bench.choices import main as choices
from bench.recalibration import main as recalibration

if __name__ == "__main__":
    raise SystemExit(recalibration(["--quick"]) or choices(["--quick"]))
