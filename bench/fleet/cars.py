"""Which cars drive what, built inside the driving process.

Must never read anything but the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.fleet.driving import Life
from bench.fleet.fleet_trips import fleet_trips
from bench.fleet.summary_car import SummaryCar
from bench.fleet.thin_car import ThinCar
from common.bundle import load_bundle
from common.model import VoltageModel
from common.signing import key_id, load_public_key
from common.trust import TrustStore
from edge_agent.parameters.decisions import Identity

DIFFERENT = 1000
"""So many vehicles are simulated; a larger fleet repeats their trips under other names."""


@dataclass(frozen=True)
class Plan:
    """`vehicles` × `trips`; with `breaches_per_s` one after the other at that pace, each a breach.

    `first` is the number of the first vehicle, so that several processes share a fleet.
    """

    bundle: Path
    public_key: Path
    vehicles: int
    trips: int
    first: int = 0
    always_breach: bool = False
    breaches_per_s: float | None = None
    name: str = "car"
    only_summaries: bool = False  # of made-up trips, without a prediction


def cars(plan: Plan) -> Sequence[Life]:
    """The cars of a plan."""
    bundle = load_bundle(plan.bundle)
    model = VoltageModel(bundle)
    public = load_public_key(plan.public_key)
    trusted = TrustStore({key_id(public): public})
    names = [f"{plan.name}-{plan.first + n:05d}" for n in range(plan.vehicles)]
    if plan.only_summaries:
        who = Identity("", bundle.sha256, bundle.manifest, trusted)
        return [
            Life(SummaryCar(replace(who, vehicle_id=n), model), range(plan.trips)) for n in names
        ]
    known = fleet_trips(min(plan.first + plan.vehicles, DIFFERENT), plan.trips, bundle.manifest)
    lives = []
    for name, trips in zip(names, islice(cycle(known.values()), plan.first, None), strict=False):
        who = Identity(name, bundle.sha256, bundle.manifest, trusted)
        lives.append(Life(ThinCar(who, model, always_breach=plan.always_breach), trips))
    return _paced(lives, plan)


def _paced(lives: list[Life], plan: Plan) -> list[Life]:
    """The cars take turns, so that no car has two trips under way."""
    if plan.breaches_per_s is None:
        return lives
    turns = np.arange(plan.trips * plan.vehicles).reshape(plan.trips, plan.vehicles)
    starts_s = turns.T / plan.breaches_per_s
    return [replace(life, schedule_s=s.tolist()) for life, s in zip(lives, starts_s, strict=True)]
