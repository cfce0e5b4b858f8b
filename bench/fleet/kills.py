"""kill -9 of any role, of PostgreSQL and of the broker, at random, while a fleet drives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.figures import Figure
from bench.fleet.cars import Plan, cars
from bench.fleet.conservation import Id, balance
from bench.fleet.driving import Drivers
from bench.fleet.staging import Installation, bundle, installation

MANY, FEW = 300, 10
SEED: Final = 9
VEHICLES, TRIPS = 60, 40
APART_S = (0.3, 1.2)


@dataclass
class Havoc:
    """What was killed, and what the fleet sent meanwhile."""

    kills: Counter[str] = field(default_factory=Counter)
    trips: list[Id] = field(default_factory=list)
    breaches: list[Id] = field(default_factory=list)
    applied: int = 0
    ended_by_itself: int = 0


def measure(*, quick: bool) -> list[Figure]:
    """On PostgreSQL, two of each role."""
    with installation("postgresql", ingest=2, worker=2) as at:
        havoc = _wreak(at, FEW if quick else MANY)
        time.sleep(1.0)
        found = balance(at, havoc.trips, havoc.breaches)
        problems = found.off + _broken_chains(at)
    killed = ", ".join(f"{name} {count}" for name, count in sorted(havoc.kills.items()))
    note = (
        f"{sum(havoc.kills.values())} kills ({killed}); {len(havoc.trips):,} trips and "
        f"{len(havoc.breaches):,} breaches, {havoc.applied:,} revisions applied; "
        f"lost {found.lost}, "
        f"twice {found.twice}, nobody's {found.foreign}; {havoc.ended_by_itself} roles ended by "
        "themselves and were started again"
    )
    return [Figure("lost, doubled or broken by kills, postgresql", problems, "", 0, note=note)]


def _wreak(at: Installation, kills: int) -> Havoc:
    random, havoc = Random(SEED), Havoc()  # noqa: S311  # to be repeated, not to be secret
    fleets = 0
    while sum(havoc.kills.values()) < kills:
        plan = Plan(bundle(), at.public_key, VEHICLES, TRIPS, name=f"fleet-{fleets}")
        with Drivers(cars, plan, at.broker.port) as drivers:
            drivers.wait_connected()
            drivers.go()
            while drivers.driving and sum(havoc.kills.values()) < kills:
                _kill_one(at, random, havoc)
            found = drivers.result()
        fleets += 1
        havoc.trips += found.trips
        havoc.breaches += found.breaches
        havoc.applied += found.applied
    return havoc


def _kill_one(at: Installation, random: Random, havoc: Havoc) -> None:
    time.sleep(random.uniform(*APART_S))
    name, again = random.choice(_victims(at))
    havoc.kills[name.rpartition("-")[0] or name] += 1
    again()
    for role in at.roles:
        if not role.running:
            havoc.ended_by_itself += 1
            role.start()


def _victims(at: Installation) -> list[tuple[str, Callable[[], object]]]:
    def restarted(kill: Callable[[], object], start: Callable[[], object]) -> Callable[[], object]:
        return lambda: (kill(), start())

    victims = [(role.name, restarted(role.kill, role.start)) for role in at.roles]
    victims.append(("broker", restarted(at.broker.kill, at.broker.start)))
    if at.server is not None:
        victims.append(("database", at.server.restart))
    return victims


def _broken_chains(at: Installation) -> int:
    """1 where `twin-cloud verify` finds anything."""
    command = ["verify", "--database", at.database, "--public-key", str(at.public_key)]
    return subprocess.run(
        [sys.executable, "-m", "cloud", *command], check=False, stdout=subprocess.DEVNULL
    ).returncode
