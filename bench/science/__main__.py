"""`python -m bench.science`: our calibration against its peers, the truth and a long Markov chain.

One command, one report: HTML with its figures into a folder, the same tables as Markdown with
`--docs`. Must never compute anything itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.science.plan import FULL, QUICK
from bench.science.report import markdown, page, print_goals
from bench.science.results import document
from bench.science.run import run

DOCS = Path(__file__).resolve().parents[2] / "docs" / "science.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.science", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="every section, with few of everything"
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--out", type=Path, default=Path("runs/science"), help="results")
    parser.add_argument("--docs", action="store_true", help="write docs/science.md, too")
    options = parser.parse_args(arguments)
    results = run(QUICK if options.quick else FULL)
    options.out.mkdir(parents=True, exist_ok=True)
    report = options.out / "report.html"
    report.write_text(page(results), encoding="utf-8")
    (options.out / "science.json").write_text(json.dumps(document(results), indent=1) + "\n")
    if options.docs:
        DOCS.write_text(markdown(results), encoding="utf-8")
    if options.json:
        print(json.dumps(document(results)))
    else:
        print_goals(results, Console())
    print(f"Report: {report}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
