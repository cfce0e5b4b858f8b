"""Choose each peer's best value on vehicles that are kept apart from those that are reported.

The lowest mean error decides (ties and updates are reported beside it). Must never see a reporting
vehicle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bench.offline_loop import Trip, drive
from bench.science.merit import mean_error_v, updates_per_1000
from bench.science.methods.catalogue import GRIDS
from common.manifest import Manifest
from common.model import VoltageModel


@dataclass(frozen=True)
class Tried:
    """One value of one grid: mean error and updates per 1,000 trips on tuning vehicles."""

    error_v: float
    updates_per_1000: float


# {peer: {label: what it gave}}
Trials = Mapping[str, Mapping[str, Tried]]


def try_grids(
    vehicles: Sequence[Sequence[Trip]],
    model: VoltageModel,
    manifest: Manifest,
    values_each: int | None,
) -> dict[str, dict[str, Tried]]:
    """Every value of every grid (the first `values_each` of each) on these vehicles."""
    found: dict[str, dict[str, Tried]] = {}
    for name, grid in GRIDS.items():
        found[name] = {}
        for label, make in islice(grid.items(), values_each):
            lives = drive(vehicles, model, make(model, manifest))
            found[name][label] = Tried(mean_error_v(lives), updates_per_1000(lives))
    return found


def merged(trials: Sequence[Trials]) -> dict[str, dict[str, Tried]]:
    """Means over the fleets that were tried."""
    return {
        name: {
            label: Tried(
                float(np.mean([trial[name][label].error_v for trial in trials])),
                float(np.mean([trial[name][label].updates_per_1000 for trial in trials])),
            )
            for label in labels
        }
        for name, labels in trials[0].items()
    }


def best_of(trials: Trials) -> dict[str, str]:
    """The label with the lowest error of each peer."""
    return {
        name: min(labels, key=lambda label: labels[label].error_v)
        for name, labels in trials.items()
    }
