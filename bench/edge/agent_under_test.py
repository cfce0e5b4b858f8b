"""The agent as `edge-agent run` puts it together, with a link and a clock that the bench holds.

Everything else is the product's own: configuration, bundle, state on a real disk. Must never reach
behind the agent's public doors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from bench.edge.made_up_car import EVERY_S, FIRST_START, Car
from common.topics import Kind
from edge_agent import service
from edge_agent.agent import Agent
from edge_agent.config import Config, load_config
from edge_agent.mqtt.link import Accepted, Connected, Event, Received
from edge_agent.samples import Sample
from edge_agent.timekeeping.clock import Clock

VEHICLE = "car-1"


@dataclass
class Link:
    """Stands for the link: events that the bench puts in, publishes that it is told of."""

    on_publish: Callable[[Kind, bytes], None] = lambda _kind, _payload: None
    events: deque[Event] = field(default_factory=deque)
    bytes_sent: int = 0
    bytes_received: int = 0
    _published: int = 0

    def start(self) -> None:
        """The bench connects when it wants."""

    def stop(self) -> None:
        """Nothing to stop."""

    def publish(self, kind: Kind, payload: bytes, *, retain: bool = False) -> int:  # noqa: ARG002
        """The broker takes everything."""
        self._published += 1
        self.events.append(Accepted(self._published))
        self.on_publish(kind, payload)
        return self._published

    def next_event(self, timeout_s: float) -> Event | None:  # noqa: ARG002
        """Never waits."""
        return self.events.popleft() if self.events else None


@dataclass
class Rig:
    """One running agent, and what it needs from outside."""

    agent: Agent
    link: Link
    now_s: list[float]

    def tell(self, *events: Event) -> None:
        """The link reports, the agent handles."""
        self.link.events.extend(events)
        self.agent.poll()

    def connect(self) -> None:
        """The broker accepts the connection."""
        self.tell(Connected())

    def receive(self, kind: str, payload: bytes) -> None:
        """A message on one of the vehicle's downward topics."""
        self.tell(Received(f"twin/v1/{VEHICLE}/{kind}", payload))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s[0] += seconds
        self.agent.poll()

    def drive(self, car: Car, number: int, first: int = 0, last: int | None = None) -> None:
        """The samples of a trip, as time passes; the caller ends it."""
        for row in list(car.rows(number))[first:last]:
            self.agent.take(sample_of(row))
            self.now_s[0] += EVERY_S


def sample_of(row: dict[str, Any]) -> Sample:
    """What a source makes of a row."""
    return Sample(
        time_s=row["time_s"],
        odometer=row["odometer"],
        signals={"distance_km": row["distance_km"]},
        voltage_v=row["voltage_v"],
        trip_id=row["trip_id"],
    )


def write_config(path: Path, bundle: Path, **limits: float) -> Path:
    """A configuration for made-up cars; its state lies in a folder of its own."""
    lines = [f"{name} = {value}" for name, value in limits.items()]
    path.write_text(
        f'vehicle_id = "{VEHICLE}"\nbundle = "{bundle}"\nstate = "state/state.db"\n'
        f'trusted_keys = ["{bundle.with_suffix(".pem")}"]\n[limits]\n' + "\n".join(lines) + "\n"
    )
    return path


@contextmanager
def running(config: Config) -> Iterator[Rig]:
    """Start an agent, and stop it as a clean end does."""
    link, now_s = Link(), [FIRST_START]
    clock = Clock(lambda: now_s[0], lambda: now_s[0])
    with (
        mock.patch.object(service, "MqttLink", return_value=link),
        service.running_agent(config, clock) as agent,
    ):
        yield Rig(agent, link, now_s)


def config_in(path: Path, state: Path) -> Config:
    """The configuration with the state in another folder."""
    return msgspec.structs.replace(load_config(path), state=str(state / "state.db"))
