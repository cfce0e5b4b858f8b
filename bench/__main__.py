"""`python -m bench`: every bench in turn, quick."""

from __future__ import annotations

from bench.recalibration import main as recalibration

if __name__ == "__main__":
    raise SystemExit(recalibration(["--quick"]))
