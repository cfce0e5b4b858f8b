"""A fleet that has lost its broker: how many knock in the same second when it is back. Simulated.

Must never draw a delay by other rules than the vehicle's own.
"""

from __future__ import annotations

import random

from bench.figures import Figure
from edge_agent.mqtt.backoff import DELAYS, Backoff

AWS_CONNECTS_PER_S = 500
"""AWS IoT Core's default of an account and region; the rest of a second is refused."""
FLEET = 10_000
ATTEMPT_S = 0.05


def attempts(backoff: Backoff, outage_s: float) -> float:
    """When one vehicle's first attempt after the outage is made; all lost the broker at 0."""
    at = backoff.next_delay_s(1e9, refused=False)
    while at < outage_s:
        at += ATTEMPT_S + backoff.next_delay_s(0.0, refused=False)
    return at


def returns(vehicles: int, outage_s: float, seed: int) -> list[float]:
    """When each vehicle knocks first, seconds after the broker is back."""
    return sorted(attempts(one, outage_s) - outage_s for one in _fleet(vehicles, seed))


def served(vehicles: int, outage_s: float, seed: int, per_s: int) -> list[float]:
    """When each vehicle is let in by a broker that takes `per_s` connections a second."""
    due = [(attempts(one, outage_s) - outage_s, one) for one in _fleet(vehicles, seed)]
    taken: dict[int, int] = {}
    done: list[float] = []
    while due:
        due.sort(key=lambda one: one[0])
        again: list[tuple[float, Backoff]] = []
        for at, backoff in due:
            second = int(at)
            if taken.get(second, 0) < per_s:
                taken[second] = taken.get(second, 0) + 1
                done.append(at)
            else:
                again.append((at + ATTEMPT_S + backoff.next_delay_s(0.0, refused=False), backoff))
        due = again
    return sorted(done)


def _fleet(vehicles: int, seed: int) -> list[Backoff]:
    return [Backoff(random.Random(seed * vehicles + n), DELAYS) for n in range(vehicles)]  # noqa: S311


def measure(*, quick: bool) -> list[Figure]:
    """Outages of a moment, ten seconds, a minute, ten minutes."""
    vehicles = FLEET // 10 if quick else FLEET
    figures = []
    for outage_s in (0.0, 10.0, 60.0, 600.0):
        back_s = returns(vehicles, outage_s, seed=1)
        seconds = [int(at) for at in back_s]
        peak = max(seconds.count(second) for second in set(seconds))
        limited = served(vehicles, outage_s, 1, AWS_CONNECTS_PER_S)
        figures += [
            Figure(
                f"knocking in one second after {outage_s:g} s without a broker",
                100.0 * peak / vehicles,
                "%",
                note=f"{vehicles} vehicles; half are back after {back_s[vehicles // 2]:.1f} s",
            ),
            Figure(
                f"until 99 % are back, {AWS_CONNECTS_PER_S} let in a second",
                limited[int(0.99 * vehicles)],
                "s",
                least=180.0,
                aim=120.0,
                note=f"after {outage_s:g} s; the last one after {limited[-1]:.0f} s",
            ),
        ]
    return figures
