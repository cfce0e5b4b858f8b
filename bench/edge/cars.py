"""Cars for the benches of the link: real agents with real links, one thread each, simulated trips.

Must never reach into an agent but through `take`, `poll` and what it says of itself.
"""

from __future__ import annotations

import json
import queue
import random
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from common.bundle import Bundle
from common.messages import Status, encode, message_id
from common.signing import TrustedKeys
from common.trust import TrustStore
from demo.simulated import vehicles_of
from demo.vehicles import TripData, VehicleData, samples_of
from edge_agent.agent import Agent
from edge_agent.config import Limits, Mqtt
from edge_agent.mqtt.backoff import DELAYS, Delays
from edge_agent.mqtt.link import MqttLink
from edge_agent.storage import outbox
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import SYSTEM
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

BUNDLE = Path(__file__).resolve().parents[2] / "tests" / "data" / "fleet_bundle"
SIMULATED = 100
DAY_S = 86_400.0
LIVE_POLL_S = 0.1  # as `edge-agent run` waits for a sample


def bundle_with(folder: Path, threshold_v: float) -> Path:
    """The fleet's bundle with another error threshold: near zero, every trip is a breach."""
    copy = folder / f"bundle-{threshold_v:g}"
    shutil.copytree(BUNDLE, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["error_threshold_v"] = threshold_v
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy


def fleet_of(vehicles: int, trips: int, seed: int) -> list[VehicleData]:
    """Vehicles and their trips, in the order of the odometer.

    The simulated battery is worn out after some 110 trips: what is more begins again from the
    first, further along the road.
    """
    fleet = vehicles_of(simulate_fleet(FleetSettings(vehicles, min(trips, SIMULATED), seed)))
    return [
        replace(one, trips=[_trip(one.trips, number) for number in range(trips)]) for one in fleet
    ]


def _trip(simulated: Sequence[TripData], number: int) -> TripData:
    lap, place = divmod(number, len(simulated))
    trip, first, last = simulated[place], simulated[0], simulated[-1]
    return replace(
        trip,
        trip_id=f"{trip.trip_id}-{lap}" if lap else trip.trip_id,
        time_s=trip.time_s + lap * (last.time_s[-1] - first.time_s[0] + DAY_S),
        odometer=trip.odometer + lap * (last.odometer[-1] - first.odometer[0] + 1.0),
    )


@dataclass(frozen=True)
class Line:
    """How a car reaches its broker, and how often it looks."""

    mqtt: Mqtt
    limits: Limits
    delays: Delays = DELAYS
    poll_s: float = LIVE_POLL_S


class Car:
    """`drive` hands it trips; in between it polls."""

    def __init__(
        self, vehicle_id: str, bundle: Bundle, folder: Path, line: Line, trusted: TrustedKeys
    ) -> None:
        self.vehicle_id = vehicle_id
        self.expected: set[str] = set()
        self.drained_at: float | None = None
        self.connected = False
        self.depth = self.taken = 0
        self.ended_at: dict[str, float] = {}
        self.failure: BaseException | None = None
        self._bundle, self._folder, self._line = bundle, folder, line
        self._trusted = TrustStore(trusted)
        self._orders: queue.Queue[TripData | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name=vehicle_id, daemon=True)

    def start(self) -> None:
        """Its own thread: a state belongs to one."""
        self._thread.start()

    def drive(self, trips: Sequence[TripData]) -> None:
        """Trips that it will take one after the other, without waiting for anybody."""
        for trip in trips:
            self._orders.put(trip)
            self.expected.add(message_id(self.vehicle_id, trip.trip_id, "trip"))

    def stop(self) -> None:
        """Leave cleanly."""
        self._orders.put(None)
        self._thread.join(60.0)

    def _run(self) -> None:
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - shown by whoever looks at the car
            self.failure = error

    def _live(self) -> None:
        with ExitStack() as stack:
            bundle = self._bundle
            self._folder.mkdir(parents=True, exist_ok=True)
            state = State(self._folder / "state.db", self.vehicle_id, bundle.sha256)
            stack.callback(state.close)
            jitter, line = random.Random(self.vehicle_id), self._line  # noqa: S311
            link = MqttLink(self.vehicle_id, line.mqtt, self._will(), jitter, line.delays)
            agent = Agent(
                *(self.vehicle_id, bundle, self._trusted, state, link, line.limits, SYSTEM)
            )
            link.start()
            stack.callback(link.stop)
            while self._turn(agent, state):
                pass
            agent.say_goodbye()

    def _turn(self, agent: Agent, state: State) -> bool:
        try:
            trip = self._orders.get(timeout=self._line.poll_s)
            if trip is None:
                return False
            self._take(agent, trip)
        except queue.Empty:
            pass
        agent.poll()
        self.connected = agent.connected
        self.depth = outbox.size(state.connection)[0]
        is_done = self.depth == 0 and self._orders.empty()
        self.drained_at = (self.drained_at or time.monotonic()) if is_done else None
        return True

    def _take(self, agent: Agent, trip: TripData) -> None:
        for sample in samples_of(trip):
            agent.take(sample)
        before = agent.statistics.breaches
        agent.driving.end_trip()
        self.ended_at[trip.trip_id] = time.monotonic()
        self.taken += 1
        if agent.statistics.breaches > before:
            self.expected.add(message_id(self.vehicle_id, trip.trip_id, "breach"))

    def _will(self) -> bytes:
        will = Status(
            vehicle_id=self.vehicle_id,
            online=False,
            agent_version="bench",
            bundle=self._bundle.sha256,
            revision=0,
        )
        return encode(will)
