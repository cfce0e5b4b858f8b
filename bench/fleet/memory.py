"""What each role holds after a million messages, and whether it still grows."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import Figure
from bench.fleet.cars import Plan
from bench.fleet.scale import BACKENDS, drive
from bench.fleet.staging import Backend, bundle, installation

VEHICLES = 1000
ROUNDS = 4
MANY, FEW = 1_000_000, 8_000
NOT_OURS = {"broker", "database"}


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    messages = FEW if quick else MANY
    return [figure for backend in BACKENDS for figure in _measured(backend, messages)]


def _measured(backend: Backend, messages: int) -> list[Figure]:
    trips = messages // VEHICLES // ROUNDS
    held: list[Mapping[str, float]] = []
    with installation(backend) as at:
        for number in range(ROUNDS):
            plan = Plan(
                bundle(),
                at.public_key,
                VEHICLES,
                trips,
                only_summaries=True,
                name=f"round-{number}",
            )
            found, used = drive(at, plan)
            held.append(used.memory_mib)
        stored_mib = at.stored_mib()
    note = f"the last quarter; the database has {stored_mib:,.0f} MiB"
    name = f"summaries a second after {messages:,} messages, {backend}"
    figures = [Figure(name, len(found.trips) / found.seconds, "/s", note=note)]
    for role in sorted(held[-1].keys() - NOT_OURS):
        growth = held[-1][role] - held[ROUNDS // 2 - 1][role]
        note = f"RSS of the largest process; {growth:+.1f} MiB in the second half"
        name = f"memory of {role} after {messages:,} messages, {backend}"
        figures.append(Figure(name, held[-1][role], "MiB", 300, 150, note=note))
    return figures
