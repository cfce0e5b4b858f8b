"""The goals: at least, and what is aimed at, beside what was measured. Values and a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.science.cells_section import TUNED
from bench.science.merit import QUARTILES
from bench.science.methods.catalogue import FLEET_PRIOR, OURS
from bench.science.spread import Spread

Interval = tuple[float, float]


@dataclass(frozen=True)
class Goal:
    """`figure` must lie in `least`, and is aimed into `aim`; so must every one of `also`."""

    name: str
    unit: str
    figure: str
    least: Interval
    aim: Interval
    also: tuple[str, ...] = ()
    scale: float = 1.0  # from the figure's unit to the one that is shown


@dataclass(frozen=True)
class Judged:
    """A goal with its figure; `measured` is None where the run did not measure it."""

    goal: Goal
    measured: Spread | None
    met_least: bool
    met_aim: bool


def at_most(limit: float) -> Interval:
    """From minus infinity."""
    return (-math.inf, limit)


def at_least(limit: float) -> Interval:
    """To infinity."""
    return (limit, math.inf)


_FLEET: Final = f"fleet/0.05 V/{OURS}"
_CLAIMS: Final = f"claims/{OURS}"
_BAND: Final = f"{_CLAIMS}/voltage/inside_95"
_CELLS: Final = f"cells/{TUNED}"
_QUARTERS: Final = tuple(f"{_BAND}_quarter_{number + 1}" for number in range(QUARTILES))

GOALS: Final = (
    Goal("mean error, trips 11–100", "V", f"{_FLEET}/error_v", at_most(0.030), at_most(0.020)),
    Goal("updates", "per 1,000", f"{_FLEET}/updates_per_1000", at_most(150), at_most(60)),
    Goal(
        f"updates saved by a fleet prior ({FLEET_PRIOR.removeprefix('ours ')})",
        "%",
        "fleet_prior/updates_saved_percent",
        at_least(20),
        at_least(50),
    ),
    Goal(
        "inside the 95 % voltage band, at every age",
        "%",
        _BAND,
        (92, 98),
        (94, 96),
        _QUARTERS,
        100,
    ),
    Goal(
        "NIS of updates inside its 95 % interval",
        "%",
        f"{_CLAIMS}/nis_updates/inside_95",
        at_least(90),
        (94, 96),
        (),
        100,
    ),
    Goal("UKF mean from MCMC mean", "σ", "posterior/mean_distance", at_most(0.3), at_most(0.1)),
    Goal("health error, mean", "points", f"{_CLAIMS}/health/mean_points", at_most(1), at_most(0.3)),
    Goal("health error, p95", "points", f"{_CLAIMS}/health/p95_points", at_most(2.5), at_most(1)),
    Goal("range error, mean", "%", f"{_CLAIMS}/range/mean_percent", at_most(3), at_most(1)),
    Goal(
        "odometer of 80 % health, predicted at half life",
        "%",
        f"forecast/{FLEET_PRIOR}/half_life/error_percent",
        at_most(10),
        at_most(5),
    ),
    Goal(
        "updates a second and core, 2 states, batch 256",
        "/s",
        "timing/one update, 2 states, batch 256/per_s",
        at_least(40_000),
        at_least(75_000),
    ),
    Goal(
        "updates a second and core, 4 states, batch 256",
        "/s",
        "timing/one update, 4 states, batch 256/per_s",
        at_least(25_000),
        at_least(45_000),
    ),
    Goal(
        "one update in a batch faster than the published settings",
        "×",
        "timing/published_over_update",
        at_least(50),
        at_least(500),
    ),
    Goal(
        "whole recalibration with its verdict faster than the published settings",
        "×",
        "timing/published_over_ours",
        at_least(50),
        at_least(500),
    ),
    Goal("calce_cs2: mean error", "V", f"{_CELLS}/error_v", at_most(0.035), at_most(0.020)),
    Goal(
        "calce_cs2: updates", "per 1,000", f"{_CELLS}/updates_per_1000", at_most(150), at_most(60)
    ),
    Goal(
        "calce_cs2: health error, mean",
        "points",
        "cells/health/mean_points",
        at_most(1.5),
        at_most(0.5),
    ),
    Goal(
        "calce_cs2: health error, p95",
        "points",
        "cells/health/p95_points",
        at_most(5),
        at_most(1.5),
    ),
    Goal(
        "calce_cs2: cells whose 80 % cycle lies in the band of half its age",
        "%",
        "cells/forecast/half_life/inside_95",
        at_least(100),
        at_least(100),
        (),
        100,
    ),
    Goal(
        "calce_cs2: cycle of 80 % health, predicted at half that age",
        "%",
        "cells/forecast/half_life/error_percent",
        at_most(20),
        at_most(8),
    ),
    Goal(
        "bmw_i3: winter error, frozen over living", "×", "car/times_lower", at_least(2), at_least(4)
    ),
)


def judged(figures: Mapping[str, Spread]) -> list[Judged]:
    """Every goal with what was measured; one that was not measured is not met."""
    return [_judged(goal, figures) for goal in GOALS]


def _judged(goal: Goal, figures: Mapping[str, Spread]) -> Judged:
    found = figures.get(goal.figure)
    means = [figures[name].mean for name in (goal.figure, *goal.also) if name in figures]
    complete = len(means) == 1 + len(goal.also)
    values = [goal.scale * mean for mean in means]

    def met(interval: Interval) -> bool:
        return complete and all(interval[0] <= value <= interval[1] for value in values)

    scaled = None
    if found is not None:
        scaled = Spread(goal.scale * found.mean, goal.scale * found.std, found.count)
    return Judged(goal, scaled, met(goal.least), met(goal.aim))


def interval_text(interval: Interval) -> str:
    """As a person writes it."""
    low, high = interval
    if math.isinf(low):
        return f"≤ {high:,g}"
    if math.isinf(high):
        return f"≥ {low:,g}"
    return f"{low:g}–{high:g}"
