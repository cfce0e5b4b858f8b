"""Figures by name, and their mean and spread over seeds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A path such as "fleet/0.05/ours with rate/error_v"; the unit ends the name.
Figures = dict[str, float]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over `count` seeds (or cells) that had the figure."""

    mean: float
    std: float
    count: int


def spread(seeds: Sequence[Figures]) -> dict[str, Spread]:
    """Each figure's spread; a seed where it is NaN or missing does not count."""
    names = dict.fromkeys(name for figures in seeds for name in figures)
    return {name: _spread([figures.get(name, np.nan) for figures in seeds]) for name in names}


def _spread(values: Sequence[float]) -> Spread:
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return Spread(float("nan"), float("nan"), 0)
    std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return Spread(float(known.mean()), std, len(known))


def under(prefix: str, figures: Figures) -> Figures:
    """The same figures below a path."""
    return {f"{prefix}/{name}": value for name, value in figures.items()}
