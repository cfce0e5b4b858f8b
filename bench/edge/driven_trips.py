"""One vehicle that drives trips on a real state file, in a process whose system calls are counted.

`python -m bench.edge.driven_trips FOLDER FIRST TRIPS KIND`: half an hour each, a sample a second,
written down every minute; receipts, and the revision for a breach, come at once. KIND is `silent`,
`breach` (every other trip is one) or `everything-durable` (silent, and every transaction waits for
the disk). A call of `getpriority` marks the end of each trip. Must never touch a network.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Literal, cast, get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.training.candidates import Kind as ActsOn
from cloud.training.candidates import Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common import calibration
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.manifest import Feature, Health, Manifest, Parameter, encode_manifest
from common.manifest import Target as VoltageTarget
from common.messages import Breach, Receipt, decode, encode
from common.model import VoltageModel
from common.revision import GENESIS, Cause, Revision, encode_revision, revision_hash
from common.signing import key_id, sign
from common.topics import Kind, topic
from common.trust import TrustStore
from edge_agent.agent import Agent
from edge_agent.config import Limits
from edge_agent.mqtt.link import Accepted, Connected, Event, MqttLink, Received
from edge_agent.samples import Sample
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock

VEHICLE = "bench-1"
TRIP_S, TRIP_KM = 1800, 30.0
START_S = 1_700_000_000.0
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TripKind = Literal["silent", "breach", "everything-durable"]


def bundle_in(folder: Path) -> Bundle:
    """A network of one neuron over the distance, with a gain on it."""
    network = Network(
        input_mean=np.array([20.0]),
        input_scale=np.array([10.0]),
        weights=(np.array([[1.0]]), np.array([[-1.0]])),
        biases=(np.array([0.0]), np.array([0.0])),
        output_mean=3.5,
        output_scale=0.6,
    )
    model = write_tflite(network, (Target(ActsOn.INPUT_GAIN, (0,)),))
    manifest = Manifest(
        schema=1,
        name="bench",
        model_sha256=revision_hash(model),
        features=[Feature("distance_km", "km", 0.0, 50.0)],
        target=VoltageTarget("voltage_v", "V", 1.0, 5.0),
        parameters=[Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0, 1e-8, 1e-6, 1e-16)],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=3.1,
        error_threshold_v=0.03,
        health=Health("distance_km", 0.0, 50.0, {}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    return load_bundle(folder)


@dataclass
class Cloud:
    """Stands for link, broker and service: answers what the vehicle publishes."""

    bundle: Bundle
    gain: float = 1.0
    events: deque[Event] = field(default_factory=lambda: deque([Connected()]))
    published: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def publish(self, kind: Kind, payload: bytes, *, retain: bool = False) -> int:
        """Accepted, and its receipt; a breach has its revision before."""
        del retain
        self.published += 1
        self.events.append(Accepted(self.published))
        if kind == "breach":
            breach = decode(payload, Breach)
            self.answer("parameters", self.revision(breach))
            self.receipt(breach.message_id)
        elif kind in {"trip", "ack"}:
            self.receipt(str(_message_id(payload)))
        return self.published

    def next_event(self, _timeout_s: float) -> Event | None:
        """What has come."""
        return self.events.popleft() if self.events else None

    def answer(self, kind: Kind, payload: bytes) -> None:
        """A message on one of the vehicle's topics."""
        self.events.append(Received(topic(VEHICLE, kind), payload))

    def receipt(self, message_id: str) -> None:
        """What has been committed."""
        self.answer("receipt", encode(Receipt(vehicle_id=VEHICLE, message_ids=[message_id])))

    def revision(self, breach: Breach) -> bytes:
        """The gain that the car really has."""
        prior = calibration.prior(self.bundle.manifest)
        made = Revision(
            vehicle_id=VEHICLE,
            number=int(breach.odometer),
            parent_hash=GENESIS,
            base=0,
            bundle=self.bundle.sha256,
            odometer=breach.odometer,
            theta=[self.gain],
            rate=[0.0],
            covariance=calibration.upper_triangle(prior.covariance),
            cause=Cause(
                kind="breach",
                message_id=breach.message_id,
                trip_id=breach.trip_id,
                points=50,
                nis=50.0,
                error_before_v=0.1,
                error_after_v=0.01,
            ),
            created_at=START_S,
            code_version="bench",
        )
        return encode(sign(encode_revision(made), KEY))


def _message_id(payload: bytes) -> object:
    return json.loads(payload)["message_id"]


class EverythingDurable(State):
    """The peer: every transaction waits for the disk."""

    @contextmanager
    def transaction(self, *, may_be_lost: bool = False) -> Iterator[Connection]:
        """As the agent did it before."""
        del may_be_lost
        with super().transaction() as db:
            yield db


class Car:
    """The agent of one vehicle with a clock that the samples drive."""

    def __init__(self, folder: Path, kind: TripKind) -> None:
        self.now_s = START_S
        self.kind = kind
        bundle = bundle_in(folder / "bundle")
        self.model = VoltageModel(bundle)
        self.cloud = Cloud(bundle)
        kept_in = EverythingDurable if kind == "everything-durable" else State
        self.state = kept_in(folder / "state.db", VEHICLE, bundle.sha256)
        clock = Clock(lambda: self.now_s, lambda: self.now_s)
        link = cast("MqttLink", self.cloud)
        trusted = TrustStore({key_id(KEY.public_key()): KEY.public_key()})
        self.agent = Agent(VEHICLE, bundle, trusted, self.state, link, Limits(), clock)
        self.agent.driving.keep_trips()

    def drive(self, number: int) -> None:
        """One trip, and what the cloud answers to it."""
        self.now_s = START_S + 2 * TRIP_S * number
        if self.kind == "breach":
            self.cloud.gain = _gain(number)
        for sample in self._samples(number):
            self.now_s += 1.0
            self.agent.take(sample)
            self.agent.poll()
        self.agent.driving.end_trip()
        while self.cloud.events:
            self.agent.poll()

    def _samples(self, number: int) -> Iterator[Sample]:
        distance_km = np.linspace(0.0, TRIP_KM, TRIP_S)
        voltage_v = self.model.predict(distance_km[:, None], [self.cloud.gain])
        for i in range(TRIP_S):
            yield Sample(
                time_s=self.now_s,
                odometer=1000.0 + TRIP_KM * number + float(distance_km[i]),
                signals={"distance_km": float(distance_km[i])},
                voltage_v=float(voltage_v[i]),
                trip_id=f"trip-{number}",
            )


def _gain(number: int) -> float:
    """Another one with every odd trip; up and down within the parameter's bounds."""
    step = (number + 1) // 2 % 8
    return 1.0 + 0.1 * min(step, 8 - step)


def main() -> None:
    """Entry point; says on standard output how many breaches there were."""
    folder, first, trips, kind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    assert kind in get_args(TripKind), kind  # noqa: S101 - called by the bench alone
    car = Car(folder, cast("TripKind", kind))
    os.getpriority(os.PRIO_PROCESS, 0)
    for number in range(first, first + trips):
        car.drive(number)
        os.getpriority(os.PRIO_PROCESS, 0)
    print(car.agent.statistics.breaches, car.agent.statistics.applied)
    car.state.close()


if __name__ == "__main__":
    main()
