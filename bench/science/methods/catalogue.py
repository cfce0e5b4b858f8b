"""Every method of the comparison by name, and the grid of values that its tuning may choose from.

Must never tune what ships: our own calibration runs as it is, each peer with the best of its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Final

import msgspec

from bench.offline_loop import Method, Update, ours
from bench.science.methods.batch_map import batch_map
from bench.science.methods.common_ground import without_rates
from bench.science.methods.least_squares import recursive_least_squares
from bench.science.methods.particles import particle_filter
from bench.science.methods.published import published
from common.calibration import Estimate, Settings
from common.manifest import Manifest
from common.model import VoltageModel

Make = Callable[[VoltageModel, Manifest], Method[Any]]

FROZEN: Final = "frozen"
PUBLISHED: Final = "published settings"
PLAIN_UKF: Final = "UKF, single pass"
WITHOUT_RATE: Final = "ours without rate"
OURS: Final = "ours with rate"
FLEET_PRIOR: Final = "ours with rate and fleet prior"
LEAST_SQUARES: Final = "recursive least squares"
PARTICLES: Final = "particle filter"
BATCH: Final = "batch MAP"


def _frozen(_model: VoltageModel, manifest: Manifest) -> Method[Estimate]:
    def refuse(breaches: Any) -> list[Update[Estimate] | None]:
        return [None] * len(breaches)

    return Method(FROZEN, manifest, lambda e: e, lambda e: e, refuse)


def _ours(model: VoltageModel, manifest: Manifest) -> Method[Estimate]:
    return ours(OURS, model, manifest, Settings())


def _one_pass(model: VoltageModel, manifest: Manifest) -> Method[Estimate]:
    return ours(PLAIN_UKF, model, manifest, Settings(passes=1))


def _without_rate(factor: float) -> Make:
    """The parameters' own process noise must do what the rate did: `factor` times as much."""

    def make(model: VoltageModel, manifest: Manifest) -> Method[Estimate]:
        plain = without_rates(_scaled_noise(manifest, factor))
        return ours(WITHOUT_RATE, model, plain, Settings())

    return make


def _least_squares(rates: bool, forgetting: float) -> Make:  # noqa: FBT001 - one value of a grid
    def make(model: VoltageModel, manifest: Manifest) -> Method[Estimate]:
        declared = manifest if rates else without_rates(manifest)
        return recursive_least_squares(model, declared, forgetting, passes=1)

    return make


def _particles(count: int, roughening: float) -> Make:
    return lambda model, manifest: particle_filter(model, manifest, count, roughening)


def _batch(window: int) -> Make:
    return lambda model, manifest: batch_map(model, manifest, window)


def _scaled_noise(manifest: Manifest, factor: float) -> Manifest:
    """The same manifest with `factor` times the parameters' process noise."""
    parameters = [
        msgspec.structs.replace(p, process_noise=factor * p.process_noise)
        for p in manifest.parameters
    ]
    return msgspec.structs.replace(manifest, parameters=parameters)


UNTUNED: Final[Mapping[str, Make]] = {
    FROZEN: _frozen,
    PUBLISHED: published,
    PLAIN_UKF: _one_pass,
    OURS: _ours,
}
# The first of each grid is a good guess: a quick run tries the first two only.
GRIDS: Final[Mapping[str, Mapping[str, Make]]] = {
    WITHOUT_RATE: {
        f"process noise × {factor:g}": _without_rate(factor)
        for factor in (1000.0, 1.0, 100.0, 10.0, 0.1)
    },
    LEAST_SQUARES: {
        f"{'with' if rates else 'without'} rate, forgetting {forgetting:g}": _least_squares(
            rates, forgetting
        )
        for forgetting, rates in product((0.3, 0.2, 0.1, 0.5, 0.7, 0.9, 0.97), (True, False))
    },
    PARTICLES: {
        f"{count} particles, roughening {roughening:g}": _particles(count, roughening)
        for count, roughening in product((2000, 500), (0.1, 0.0, 0.2, 0.4))
    },
    BATCH: {f"last {window} traces": _batch(window) for window in (2, 1, 3, 4, 8)},
}


def tuned_methods(chosen: Mapping[str, str]) -> dict[str, Make]:
    """Every method but the fleet prior's, by name; `chosen` is a label of each grid."""
    return {**UNTUNED, **{name: GRIDS[name][label] for name, label in chosen.items()}}
