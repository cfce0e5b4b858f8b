"""The published scale table: N vehicles × M trips, every trip through the broker and back."""

from __future__ import annotations

from dataclasses import replace

from bench.figures import Figure
from bench.fleet.cars import Plan, cars
from bench.fleet.conservation import conserved
from bench.fleet.driving import Driven, Drivers
from bench.fleet.staging import Backend, Installation, bundle, installation
from bench.fleet.usage import Usage, usage


def measure(*, quick: bool) -> list[Figure]:
    """Both sizes on both databases."""
    sizes = [(20, 20), (100, 2)] if quick else [(100, 100), (1000, 10)]
    return [
        figure
        for backend in BACKENDS
        for vehicles, trips in sizes
        for figure in _scale(backend, vehicles, trips)
    ]


BACKENDS: tuple[Backend, ...] = ("sqlite", "postgresql")


def drive(at: Installation, plan: Plan) -> tuple[Driven, Usage]:
    """Drive a plan to its end; what the cars saw, and what everything else used meanwhile."""
    with Drivers(cars, plan, at.broker.port) as drivers:
        drivers.wait_connected()
        before = usage(at.pids())
        drivers.go()
        found = drivers.result()
        return found, usage(at.pids()).since(before)


def warmed(at: Installation, plan: Plan) -> Driven:
    """Some vehicles of such a plan, and a database that has lived: what is sustained needs it."""
    found, _ = drive(at, replace(plan, vehicles=100, trips=20, name="warm", breaches_per_s=None))
    at.analyse()
    return found


def _scale(backend: Backend, vehicles: int, trips: int) -> list[Figure]:
    with installation(backend) as at:
        found, used = drive(at, Plan(bundle(), at.public_key, vehicles, trips))
        name = f"{vehicles:,} vehicles × {trips} trips, {backend}"
        kept = conserved(at, [found], name)
    return [Figure(name, found.seconds, "s", 60, 20, note=_note(found, used)), kept]


def _note(found: Driven, used: Usage) -> str:
    return (
        f"{len(found.trips):,} trips, {len(found.breaches):,} breaches, {found.applied:,} applied, "
        f"{found.refused} refused, {found.declined} declined; "
        f"{used.told(found.cpu_s)}"
    )
