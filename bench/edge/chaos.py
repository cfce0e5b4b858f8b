"""Faults between real agents and a real Mosquitto: nothing lost, nothing counted twice, in order.

Must never forgive: what is missing, unexpected or out of order at the end is a figure above zero.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.edge.cars import Car, Line, bundle_with, fleet_of
from bench.edge.proxy import Fault, Proxy
from bench.edge.receipting_cloud import ReceiptingCloud
from bench.figures import Figure
from common.bundle import load_bundle
from demo.broker import PrivateBroker
from demo.vehicles import VehicleData
from edge_agent.config import Limits, Mqtt
from edge_agent.mqtt.backoff import Delays

BROKER_KILL, BROKER_RESTART = "the broker is killed", "the broker is stopped and started"
Protocol = Literal["5", "3.1.1"]
BROKERS: tuple[tuple[str, Protocol], ...] = (
    ("persistence true", "5"),
    ("persistence false", "3.1.1"),
)
"""A line of the broker's configuration, and what the cars speak."""
EVERY_TRIP_BREACHES_V = 1e-6
SETTLE_S = 90.0


@dataclass(frozen=True)
class Plan:
    """How much of it: `gap_s` between faults; of `broker_every` faults one is the broker's."""

    vehicles: int
    trips: int
    faults: int
    gap_s: float
    seed: int
    protocol: Protocol = "5"
    broker_every: int = 40


@dataclass(frozen=True)
class Report:
    """What was done, and what came of it."""

    faults: Counter[str]
    facts: int
    lost: int
    unexpected: int
    out_of_order: int
    repeated: int
    quarantined: int
    not_connected: int
    settle_s: float
    failures: tuple[str, ...]


def run(plan: Plan, folder: Path, broker: PrivateBroker) -> Report:
    """All of `plan`, with what the cars keep in `folder`; the broker is killed again and again."""
    draw = random.Random(plan.seed)  # noqa: S311
    bundle = load_bundle(bundle_with(folder, EVERY_TRIP_BREACHES_V))
    fleet = fleet_of(plan.vehicles, plan.trips, plan.seed)
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(broker.port, draw))
        cloud = ReceiptingCloud(broker.port).start()
        stack.callback(cloud.stop)
        line = Line(
            # Less than the configuration allows: a hole must not outlast the bench.
            Mqtt(port=proxy.port, keepalive_s=1, protocol=plan.protocol),
            Limits(receipt_timeout_s=2.0, status_interval_s=1.0),
            Delays(first_s=0.05, longest_s=0.5),
            poll_s=0.02,
        )
        cars = [Car(v.vehicle_id, bundle, folder / v.vehicle_id, line, {}) for v in fleet]
        for car in cars:
            car.start()
            stack.callback(car.stop)
        faults = _disturb(plan, draw, proxy, broker, _drivers(cars, fleet, plan))
        proxy.heal()
        settle_s = _settle(cars)
        return _report(cars, cloud, faults, settle_s)


def _drivers(
    cars: Sequence[Car], fleet: Sequence[VehicleData], plan: Plan
) -> Callable[[int], None]:
    """Spread every car's trips evenly over the faults."""
    rounds = [list(zip(cars, trips, strict=True)) for trips in zip(*(v.trips for v in fleet))]  # noqa: B905
    orders = list(itertools.chain.from_iterable(rounds))
    done = 0

    def drive(number: int) -> None:
        nonlocal done
        upto = len(orders) * (number + 1) // plan.faults
        for car, trip in orders[done:upto]:
            car.drive([trip])
        done = upto

    return drive


def _disturb(
    plan: Plan,
    draw: random.Random,
    proxy: Proxy,
    broker: PrivateBroker,
    drive: Callable[[int], None],
) -> Counter[str]:
    counts: Counter[str] = Counter()
    deck: list[Fault] = []
    for number in range(plan.faults):
        drive(number)
        if number % plan.broker_every == plan.broker_every - 1:
            counts[_disturb_broker(broker, draw)] += 1
        else:
            deck = deck or draw.sample(list(Fault), len(Fault))
            fault = deck.pop()
            while not proxy.inject(fault):
                time.sleep(0.02)  # no car is connected just now
            counts[fault.value] += 1
        time.sleep(plan.gap_s * draw.uniform(0.2, 1.8))
    return counts


def _disturb_broker(broker: PrivateBroker, draw: random.Random) -> str:
    if draw.choice((True, False)):
        broker.kill()
        broker.start()
        return BROKER_KILL
    broker.restart()
    return BROKER_RESTART


def _settle(cars: Sequence[Car]) -> float:
    """How long until every car is connected and drained; SETTLE_S when that does not come."""
    start = time.monotonic()
    while time.monotonic() - start < SETTLE_S:
        if all(car.connected and car.drained_at is not None for car in cars):
            break
        time.sleep(0.02)
    return time.monotonic() - start


def _report(
    cars: Sequence[Car], cloud: ReceiptingCloud, faults: Counter[str], settle_s: float
) -> Report:
    expected = {car.vehicle_id: car.expected for car in cars}
    odometers = [cloud.breach_odometers.get(car.vehicle_id, []) for car in cars]
    return Report(
        faults=faults,
        facts=sum(len(ids) for ids in expected.values()),
        lost=sum(len(ids - cloud.stored(name)) for name, ids in expected.items()),
        unexpected=sum(len(cloud.stored(name) - ids) for name, ids in expected.items())
        + len(set(cloud.facts) - set(expected)),
        out_of_order=sum(b <= a for one in odometers for a, b in itertools.pairwise(one)),
        repeated=sum(number - 1 for number in cloud.deliveries.values()),
        quarantined=cloud.quarantined,
        not_connected=sum(not car.connected for car in cars),
        settle_s=settle_s,
        failures=tuple(f"{car.vehicle_id}: {car.failure!r}" for car in cars if car.failure),
    )


def measure(*, quick: bool) -> list[Figure]:
    """Half of the faults with MQTT 5 and sessions that are kept on disk, half with neither."""
    faults = 30 if quick else 520
    found = []
    for seed, (line, protocol) in enumerate(BROKERS, 7):
        plan = Plan(3 if quick else 6, 10 if quick else 160, faults, 0.2, seed, protocol)
        with (
            tempfile.TemporaryDirectory() as folder,
            PrivateBroker(source="mosquitto", config_lines=(line,)) as broker,
        ):
            found.append(run(plan, Path(folder), broker))
    kinds = sum((report.faults for report in found), Counter[str]())
    told = ", ".join(f"{kind}: {number}" for kind, number in kinds.most_common())
    total = sum(report.facts for report in found)
    wrong = {
        "messages lost": [report.lost for report in found],
        "messages that nobody sent": [report.unexpected for report in found],
        "breaches out of order": [report.out_of_order for report in found],
        "vehicles not connected at the end": [report.not_connected for report in found],
        "agents that failed": [len(report.failures) for report in found],
    }
    return [
        Figure("faults injected", kinds.total(), "", least=1000, is_floor=True, note=told),
        *(
            Figure(name, sum(values), "", least=0, note=f"of {total} messages")
            for name, values in wrong.items()
        ),
        Figure(
            "deliveries beside the first of each message",
            sum(report.repeated for report in found),
            "",
            note=f"each was one fact; {sum(r.quarantined for r in found)} garbled ones refused",
        ),
        Figure(
            "until all are connected and drained, after the last fault",
            max(report.settle_s for report in found),
            "s",
            least=60.0,
            aim=10.0,
        ),
    ]
