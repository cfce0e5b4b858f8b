"""Thirty days without a broker, then all of it at once: how long, in what order, and what waits.

Must never help the agent: it looks as often as `edge-agent run` does, over a line that is slow.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.edge.cars import Car, Line, bundle_with, fleet_of
from bench.edge.proxy import Proxy
from bench.edge.receipting_cloud import ReceiptingCloud
from bench.figures import Figure
from common.bundle import Bundle, load_bundle
from common.messages import message_id
from common.signing import TrustedKeys, key_id, load_public_key
from demo.broker import PrivateBroker
from demo.loop import free_port, stage
from demo.vehicles import VehicleData
from edge_agent.config import Limits, Mqtt

DAYS, TRIPS_A_DAY = 30, 4
EVERY_TRIP_BREACHES_V, NO_TRIP_BREACHES_V = 1e-6, 10.0
MANY = 1000
"""Trips without a breach that fill the outbox beyond what is looked over at once."""
LINE_DELAY_S = 0.05
"""Each way: a round trip of 100 ms, as over a mobile network; a receipt is two legs more."""
LIVE_EVERY_S = 2.0
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Drained:
    """How long it took, whether in order and whole, and how long each live trip's summary took."""

    seconds: float
    messages: int
    breaches: int
    lost: int
    out_of_order: int
    live_s: tuple[float, ...]


def _wait(reached: Callable[[], bool], car: Car) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not reached() and time.monotonic() < end_s and car.failure is None:
        time.sleep(0.01)


def offline(vehicle: VehicleData, bundle: Bundle, folder: Path, trips: int) -> set[str]:
    """Drive without a broker; the ids of what the car keeps."""
    line = Line(Mqtt(port=free_port()), Limits())
    car = Car(vehicle.vehicle_id, bundle, folder, line, {})
    car.start()
    car.drive(vehicle.trips[:trips])
    _wait(lambda: car.taken == trips, car)
    car.stop()
    return car.expected


def online(
    vehicle: VehicleData,
    bundle: Bundle,
    folder: Path,
    port: int,
    live: int,
    trusted: TrustedKeys,
) -> tuple[Car, float]:
    """Connect and drain, driving `live` more trips meanwhile; the car and how long it took."""
    car = Car(vehicle.vehicle_id, bundle, folder, Line(Mqtt(port=port), Limits()), trusted)
    car.start()
    _wait(lambda: car.connected, car)
    start = time.monotonic()
    for trip in vehicle.trips[len(vehicle.trips) - live :]:
        time.sleep(LIVE_EVERY_S)
        car.drive([trip])
    _wait(lambda: car.drained_at is not None and car.taken == live, car)
    seconds = (car.drained_at or time.monotonic()) - start
    car.stop()
    return car, seconds


def with_stand_in(trips: int, live: int, threshold_v: float, folder: Path) -> Drained:
    """Over the slow line, to a cloud that answers at once."""
    bundle = load_bundle(bundle_with(folder, threshold_v))
    (vehicle,) = fleet_of(1, trips + live, seed=5)
    kept = offline(vehicle, bundle, folder / "car", trips)
    draw = random.Random(1)  # noqa: S311
    with (
        PrivateBroker(source="mosquitto") as broker,
        Proxy(broker.port, draw, LINE_DELAY_S) as proxy,
    ):
        cloud = ReceiptingCloud(broker.port).start()
        car, seconds = online(vehicle, bundle, folder / "car", proxy.port, live, {})
        cloud.stop()
    name = vehicle.vehicle_id
    odometers = cloud.breach_odometers.get(name, [])
    return Drained(
        seconds,
        messages=len(cloud.stored(name)),
        breaches=len(odometers),
        lost=len((kept | car.expected) - cloud.stored(name)),
        out_of_order=sum(b <= a for a, b in itertools.pairwise(odometers)),
        live_s=tuple(
            cloud.committed_at.get(message_id(name, trip, "trip"), float("inf")) - at
            for trip, at in car.ended_at.items()
        ),
    )


def with_cloud(trips: int, folder: Path) -> Drained:
    """To the real service, which calibrates every breach while the next ones come."""
    path = bundle_with(folder, EVERY_TRIP_BREACHES_V)
    bundle = load_bundle(path)
    (vehicle,) = fleet_of(1, trips, seed=5)
    kept = offline(vehicle, bundle, folder / "car", trips)
    draw = random.Random(1)  # noqa: S311
    with stage(path, folder / "cloud") as on, Proxy(on.broker.port, draw, LINE_DELAY_S) as proxy:
        key = load_public_key(on.public_key)
        trusted = {key_id(key): key}
        _, seconds = online(vehicle, bundle, folder / "car", proxy.port, 0, trusted)
        with closing(sqlite3.connect(on.database)) as db:
            odometers = [row[0] for row in db.execute("SELECT odometer FROM breach ORDER BY id")]
            ids = {row[0] for row in db.execute("SELECT message_id FROM breach")}
            ids |= {row[0] for row in db.execute("SELECT message_id FROM trip")}
    return Drained(
        seconds,
        messages=len(ids),
        breaches=len(odometers),
        lost=len(kept - ids),
        out_of_order=sum(b <= a for a, b in itertools.pairwise(odometers)),
        live_s=(),
    )


def _figures(name: str, found: Drained) -> list[Figure]:
    told = f"{found.messages} messages, {found.breaches} breaches"
    figures = [
        Figure(f"{name}: until drained", found.seconds, "s", least=120.0, aim=60.0, note=told),
        Figure(f"{name}: lost", found.lost, "", least=0),
        Figure(f"{name}: breaches out of order", found.out_of_order, "", least=0),
    ]
    if found.live_s:
        figures.append(_live(name, found.live_s))
    return figures


def _live(name: str, live_s: Sequence[float]) -> Figure:
    note = f"the worst of {len(live_s)} trips that ended meanwhile, to the cloud's commit"
    return Figure(f"{name}: a live trip's delay", max(live_s), "s", least=5.0, aim=1.0, note=note)


def measure(*, quick: bool) -> list[Figure]:
    """Every trip a breach; a long backlog of summaries alone; the real cloud calibrating."""
    trips = 24 if quick else DAYS * TRIPS_A_DAY
    live = 2 if quick else 10
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        all_breach = with_stand_in(trips, live, EVERY_TRIP_BREACHES_V, Path(folder))
        figures += _figures(f"{trips} trips, all breaches", all_breach)
    with tempfile.TemporaryDirectory() as folder:
        number = 60 if quick else MANY
        none = with_stand_in(number, live, NO_TRIP_BREACHES_V, Path(folder))
        figures += _figures(f"{number} trips, no breach", none)
    with tempfile.TemporaryDirectory() as folder:
        real = with_cloud(trips, Path(folder))
        figures += _figures(f"{trips} trips, all breaches, `twin-cloud serve` calibrating", real)
    return figures
