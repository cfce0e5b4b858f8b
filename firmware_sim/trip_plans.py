"""What the vehicles of the published fleet set out to do: the only place where dice are thrown.

Pure and seeded: each vehicle has its own stream for each quantity, so that nobody's draws depend on
anybody else's. Must never use a global random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.battery import KG_PER_LB, KM_PER_MILE, S_PER_HOUR, FloatArray


@dataclass(frozen=True)
class Draw:
    """A normal distribution, redrawn while not above `above`."""

    mean: float
    std: float
    above: float


DISTANCE_KM: Final = Draw(200.0 * KM_PER_MILE, 20.0 * KM_PER_MILE, 50.0 * KM_PER_MILE)
DURATION_S: Final = Draw(5.0 * S_PER_HOUR, 0.5 * S_PER_HOUR, 1.0 * S_PER_HOUR)
LOAD_KG: Final = Draw(10_000.0 * KG_PER_LB, 1_000.0 * KG_PER_LB, 0.0)


@dataclass(frozen=True, eq=False)
class TripPlans:
    """Planned trips, arrays of [vehicles, trips], and one noise stream per vehicle for its BMS."""

    distance_km: FloatArray
    duration_s: FloatArray
    load_kg: FloatArray
    noise: tuple[np.random.Generator, ...]


def draw_plans(vehicles: int, trips: int, seed: int) -> TripPlans:
    """The same seed gives vehicle i the same plans, however many vehicles and trips there are."""
    streams = [_streams(child) for child in np.random.SeedSequence(seed).spawn(vehicles)]
    distance_km, duration_s, load_kg = (
        np.stack([draw_many(draw, own[quantity], trips) for own in streams])
        for quantity, draw in enumerate((DISTANCE_KM, DURATION_S, LOAD_KG))
    )
    return TripPlans(distance_km, duration_s, load_kg, tuple(own[3] for own in streams))


def draw_many(draw: Draw, rng: np.random.Generator, count: int) -> FloatArray:
    """`count` values of the distribution, each redrawn until it is above the bound."""
    values = rng.normal(draw.mean, draw.std, count)
    while (refused := values <= draw.above).any():
        values[refused] = rng.normal(draw.mean, draw.std, int(refused.sum()))
    return values


def _streams(seed: np.random.SeedSequence) -> list[np.random.Generator]:
    return [np.random.Generator(np.random.PCG64(child)) for child in seed.spawn(4)]
