"""Breach to applied: how long one takes at a steady pace, and how many a second there can be."""

from __future__ import annotations

import numpy as np

from bench.figures import Figure
from bench.fleet.cars import Plan
from bench.fleet.conservation import conserved
from bench.fleet.scale import BACKENDS, drive, warmed
from bench.fleet.staging import Backend, bundle, installation

PACE_PER_S = 50.0


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    return [
        figure
        for backend in BACKENDS
        for figure in [*_latency(backend, quick=quick), *_sustained(backend, quick=quick)]
    ]


def _latency(backend: Backend, *, quick: bool) -> list[Figure]:
    vehicles, trips = (50, 4) if quick else (200, 10)
    with installation(backend) as at:
        plan = Plan(
            bundle(),
            at.public_key,
            vehicles,
            trips,
            always_breach=True,
            breaches_per_s=PACE_PER_S,
        )
        warmed(at, plan)
        found, _ = drive(at, plan)
    p50, p99 = 1e3 * np.quantile(found.outcome_s, [0.5, 0.99])
    note = f"{len(found.outcome_s):,} applied of {len(found.breaches):,} breaches, whole path"
    name = f"breach to applied at {PACE_PER_S:g} breaches/s, {backend}"
    return [
        Figure(f"{name}, p50", float(p50), "ms", 60, 15, note=note),
        Figure(f"{name}, p99", float(p99), "ms", 250, 60, note=note),
    ]


def _sustained(backend: Backend, *, quick: bool) -> list[Figure]:
    vehicles, trips = (100, 4) if quick else (1000, 12)
    with installation(backend) as at:
        plan = Plan(bundle(), at.public_key, vehicles, trips, always_breach=True)
        warm = warmed(at, plan)
        found, used = drive(at, plan)
        kept = conserved(at, [warm, found], f"recalibrations sustained, {backend}")
    made = found.applied + found.refused
    note = (
        f"{made:,} revisions and {found.declined:,} declines of {len(found.breaches):,} breaches, "
        f"{found.refused} refused; {used.told(found.cpu_s)}"
    )
    return [
        Figure(
            f"recalibrations sustained, {backend}",
            made / found.seconds,
            "/s",
            400,
            1500,
            is_floor=True,
            note=note,
        ),
        kept,
    ]
