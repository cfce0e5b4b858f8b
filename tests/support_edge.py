"""What the tests of contract and agent share: two tiny bundles, revisions, trips, a link of memory.

The aged bundle bends with the distance and ages; the linear one is linear in both parameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.training.candidates import Kind, Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common import calibration, revision
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.manifest import Feature, Health, Manifest, MovingAverage, Parameter, encode_manifest
from common.manifest import Target as VoltageTarget
from common.messages import encode, message_id
from common.model import VoltageModel
from common.revision import GENESIS, Cause, Revision, encode_revision
from common.signing import TrustedKeys, key_id, sign
from common.topics import Kind as TopicKind
from common.trust import TrustStore
from edge_agent.agent import Agent
from edge_agent.config import Limits
from edge_agent.mqtt.link import Connected, Event, MqttLink
from edge_agent.samples import Sample
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock as AgentClock

VEHICLE = "car-1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
FOREIGN_KEY = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
TRUSTED: TrustedKeys = {key_id(KEY.public_key()): KEY.public_key()}
TRUST = TrustStore(TRUSTED)
START = 1_700_000_000.0
NETWORK = Network(
    input_mean=np.array([200.0, 500.0]),
    input_scale=np.array([100.0, 500.0]),
    weights=(np.array([[1.0, 0.05]]), np.array([[-1.0]])),
    biases=(np.array([0.0]), np.array([0.0])),
    output_mean=3.5,
    output_scale=0.6,
)
AGEING = (
    Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0, 1e-8, 1e-6, 1e-16),
    Parameter("offset", "V", 0.0, 0.05, -0.5, 0.5, 1e-9),
)
LINEAR = (
    Parameter("gain", "1", 1.0, 0.05, 0.5, 2.0),
    Parameter("offset", "V", 0.0, 0.05, -0.5, 0.5),
)
Acts = tuple[Target, ...]
AGEING_ACTS: Acts = (Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,)))
LINEAR_ACTS: Acts = (Target(Kind.OUTPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,)))


def manifest_of(model: bytes, parameters: Sequence[Parameter] = AGEING, **changes: Any) -> Manifest:
    """The manifest of a tiny model, with whatever a test wants otherwise."""
    manifest = Manifest(
        schema=1,
        name="tiny",
        model_sha256=revision.revision_hash(model),
        features=[
            Feature("distance_km", "km", 0.0, 500.0),
            Feature("load_avg", "kg", 0.0, 2000.0, MovingAverage("load_kg", 60.0)),
        ],
        target=VoltageTarget("voltage_v", "V", 1.0, 5.0),
        parameters=list(parameters),
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=3.1,
        error_threshold_v=0.03,
        health=Health("distance_km", 0.0, 500.0, {"load_avg": 500.0}),
    )
    return msgspec.structs.replace(manifest, **changes)


def write_bundle(
    folder: Path,
    parameters: Sequence[Parameter] = AGEING,
    acts: Acts = AGEING_ACTS,
    **changes: Any,
) -> Path:
    """Write a tiny bundle; `changes` go into its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write_tflite(NETWORK, acts)
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest_of(model, parameters, **changes)))
    return folder


def aged_bundle(folder: Path, **changes: Any) -> Bundle:
    """A gain on the distance with an ageing rate, and an offset of the output."""
    return load_bundle(write_bundle(folder, **changes))


def linear_bundle(folder: Path, **changes: Any) -> Bundle:
    """A gain and an offset of the output: the voltage is linear in both."""
    return load_bundle(write_bundle(folder, LINEAR, LINEAR_ACTS, **changes))


def revision_for(bundle: Bundle, /, **changes: Any) -> Revision:
    """A revision that the vehicle would take: the true gain of `drive`, as its first."""
    prior = calibration.prior(bundle.manifest)
    made = Revision(
        vehicle_id=VEHICLE,
        number=1,
        parent_hash=GENESIS,
        base=0,
        bundle=bundle.sha256,
        odometer=0.0,
        theta=[1.1, 0.0],
        rate=[0.0, 0.0],
        covariance=calibration.upper_triangle(prior.covariance),
        cause=Cause(
            kind="breach",
            message_id=message_id(VEHICLE, "trip-1", "breach"),
            trip_id="trip-1",
            points=50,
            nis=50.0,
            error_before_v=0.1,
            error_after_v=0.01,
        ),
        created_at=START,
        code_version="0.1.0",
    )
    return msgspec.structs.replace(made, **changes)


def signed(made: Revision, key: Ed25519PrivateKey = KEY) -> bytes:
    """The bytes of the signed revision as they stand on the retained topic."""
    return encode(sign(encode_revision(made), key))


def drive(
    bundle: Bundle,
    trip_id: str | None = "trip-1",
    *,
    gain: float = 1.1,
    count: int = 60,
    odometer: float = 1000.0,
    start: float = START,
) -> Iterator[Sample]:
    """A trip of 300 km in which the battery behaves as if its gain were `gain`."""
    distance = np.linspace(0.0, 300.0, count)
    features = np.column_stack([distance, np.full(count, 500.0)])
    voltage = VoltageModel(bundle).predict(features, [gain, 0.0])
    for i in range(count):
        yield Sample(
            time_s=start + 60.0 * i,
            odometer=odometer + float(distance[i]),
            signals={"distance_km": float(distance[i]), "load_kg": 500.0},
            voltage_v=float(voltage[i]),
            trip_id=trip_id,
        )


@dataclass
class MemoryLink:
    """Stands for MqttLink: events that a test puts in, publishes that it reads."""

    events: deque[Event] = field(default_factory=deque)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    on_publish: Callable[[str, bytes], None] = lambda _kind, _payload: None
    bytes_sent: int = 0
    bytes_received: int = 0

    def publish(self, kind: TopicKind, payload: bytes, *, retain: bool = False) -> int:
        self.on_publish(kind, payload)
        self.sent.append((kind, payload))
        return len(self.sent)

    def next_event(self, timeout_s: float) -> Event | None:
        return self.events.popleft() if self.events else None

    def payloads(self, kind: str) -> list[bytes]:
        return [payload for sent, payload in self.sent if sent == kind]


@dataclass
class Clock:
    """A clock that a test sets; `jumped` is by how much the wall clock alone was moved."""

    now: float = START
    jumped: float = 0.0

    def unix(self) -> float:
        return self.now + self.jumped

    def monotonic(self) -> float:
        return self.now


class Rig:
    """An agent on a real state file with a link of memory and a clock of its own."""

    def __init__(self, path: Path, bundle: Bundle, **limits: Any) -> None:
        self.path, self.bundle = path, bundle
        self.limits = Limits(**limits)
        self.clock = Clock()
        self.open()

    def open(self) -> None:
        self.link = MemoryLink()
        self.state = State(self.path, VEHICLE, self.bundle.sha256)
        link = cast("MqttLink", self.link)
        clock = AgentClock(self.clock.unix, self.clock.monotonic)
        self.agent = Agent(VEHICLE, self.bundle, TRUST, self.state, link, self.limits, clock)

    def reopen(self) -> None:
        """What a restart does."""
        self.state.close()
        self.open()

    def tell(self, *events: Event) -> None:
        """Let the link report these events, and let the agent handle them."""
        self.link.events.extend(events)
        self.agent.poll()

    def connect(self) -> None:
        self.tell(Connected())

    def drive(self, trip_id: str | None = "trip-1", **options: Any) -> None:
        """A whole trip, ended."""
        for sample in drive(self.bundle, trip_id, **options):
            self.agent.take(sample)
        self.agent.driving.end_trip()
