"""What a run found, as one value and as the JSON document for programs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.science.cells_section import CellResult
from bench.science.fleet_section import SeedResult
from bench.science.goals import Goal, judged
from bench.science.plan import Plan
from bench.science.posterior import CONVERGED_BELOW
from bench.science.spread import Figures, Spread, spread
from bench.science.tuning import Trials


@dataclass(frozen=True)
class Results:
    """Everything that the report shows."""

    plan: Plan
    trials: Trials
    chosen: Mapping[str, str]
    seeds: Sequence[SeedResult]
    cells: Sequence[CellResult]
    figures: Mapping[str, Spread]
    seconds: float


def gathered(
    seeds: Sequence[SeedResult],
    cells: Sequence[CellResult],
    car: Sequence[Figures],
    timing: Figures,
) -> dict[str, Spread]:
    """Every figure with its spread: over seeds, over cells, over networks, over converged cases."""
    cases = [case for seed in seeds for case in seed.posterior]
    converged = [case for case in cases if case["r_hat"] < CONVERGED_BELOW]
    posterior = {f"posterior/{name}": value for name, value in spread(converged).items()}
    return {
        **spread([seed.figures for seed in seeds]),
        **posterior,
        "posterior/cases": Spread(float(len(cases)), 0.0, 1),
        "posterior/converged": Spread(float(len(converged)), 0.0, 1),
        **spread([cell.figures for cell in cells]),
        **spread(car),
        **spread([timing]),
    }


def document(results: Results) -> dict[str, object]:
    """One JSON document: every figure, the goals and whether they are met."""
    return {
        "plan": asdict(results.plan),
        "seconds": results.seconds,
        "tuned": {
            name: {
                "chosen": results.chosen[name],
                "tried": {label: asdict(tried) for label, tried in labels.items()},
            }
            for name, labels in results.trials.items()
        },
        "tuned_on_other_cells": {cell.name: dict(cell.chosen) for cell in results.cells},
        "goals": [
            {
                "name": found.goal.name,
                "unit": found.goal.unit,
                "figure": found.goal.figure,
                "at_least": _limits(found.goal, "least"),
                "aim": _limits(found.goal, "aim"),
                "measured": None if found.measured is None else _number(found.measured.mean),
                "std": None if found.measured is None else _number(found.measured.std),
                "met": found.met_least,
                "met_aim": found.met_aim,
            }
            for found in judged(results.figures)
        ],
        "figures": {
            name: {"mean": _number(v.mean), "std": _number(v.std), "count": v.count}
            for name, v in results.figures.items()
        },
    }


def _limits(goal: Goal, which: str) -> list[float | None]:
    low, high = goal.least if which == "least" else goal.aim
    return [_number(low), _number(high)]


def _number(value: float) -> float | None:
    """JSON knows neither infinity nor NaN."""
    return value if math.isfinite(value) else None
