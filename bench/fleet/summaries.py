"""Trip summaries a second, each committed before its receipt; and what one costs as fleets grow."""

from __future__ import annotations

from bench.figures import Figure
from bench.fleet.cars import Plan
from bench.fleet.conservation import conserved
from bench.fleet.driving import Driven
from bench.fleet.scale import BACKENDS, drive, warmed
from bench.fleet.staging import Backend, bundle, installation
from bench.fleet.usage import Usage

SIZES = (10, 100, 1000, 10_000)
SMALLEST, JUDGED, LARGEST = 100, 1000, 10_000


def measure(*, quick: bool) -> list[Figure]:
    """On both databases."""
    messages = 4_000 if quick else 40_000
    sizes = (10, 100, 1000) if quick else SIZES
    return [figure for backend in BACKENDS for figure in _of(backend, messages, sizes)]


def _of(backend: Backend, messages: int, sizes: tuple[int, ...]) -> list[Figure]:
    figures: list[Figure] = []
    cost_us = {}
    for vehicles in sizes:
        with installation(backend) as at:
            plan = Plan(
                bundle(), at.public_key, vehicles, messages // vehicles, only_summaries=True
            )
            warm = warmed(at, plan)
            found, used = drive(at, plan)
            if vehicles == JUDGED:
                figures.append(
                    conserved(at, [warm, found], f"{vehicles:,} vehicles' summaries, {backend}")
                )
        cost_us[vehicles] = 1e6 * sum(used.cpu_s.values()) / len(found.trips)
        figures.append(_rate(backend, vehicles, found, used))
    figures += [
        Figure(f"cost of a summary, {vehicles:,} vehicles, {backend}", cost, "µs of CPU")
        for vehicles, cost in cost_us.items()
    ]
    if LARGEST in cost_us:
        growth = cost_us[LARGEST] / cost_us[SMALLEST]
        name = f"cost of a message, {LARGEST:,} against {SMALLEST} vehicles, {backend}"
        figures.append(Figure(name, growth, "×", 1.5, 1.1))
    return figures


def _rate(backend: Backend, vehicles: int, found: Driven, used: Usage) -> Figure:
    return Figure(
        f"summaries committed and answered, {vehicles:,} vehicles, {backend}",
        len(found.trips) / found.seconds,
        "/s",
        least=3000 if vehicles == JUDGED else None,
        aim=8000 if vehicles == JUDGED else None,
        is_floor=True,
        note=f"{len(found.trips):,} messages; {used.told(found.cpu_s)}",
    )
