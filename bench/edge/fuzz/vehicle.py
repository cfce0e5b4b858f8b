"""The vehicle that is fuzzed: a tiny bundle, its keys, a kept breach, and revisions to begin from.

The key that signs is here to make seeds and hostile revisions of a trusted signer, nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.training.candidates import Kind, Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common import calibration
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.manifest import Feature, Manifest, MovingAverage, Parameter, encode_manifest
from common.manifest import Target as VoltageTarget
from common.messages import Breach, encode, message_id
from common.model import VoltageModel
from common.revision import GENESIS, Cause, Revision, revision_hash
from common.signing import key_id
from common.trace import TraceArrays, to_wire
from common.trust import TrustStore
from edge_agent.parameters.decisions import Identity
from edge_agent.samples import Sample
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.trips.trip_monitor import Twin

VEHICLE: Final = "car-1"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
FOREIGN_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
START: Final = 1_700_000_000.0
ODOMETER: Final = 1000.0
CAUSE: Final = message_id(VEHICLE, "trip-1", "breach")
GAIN: Final = 1.1  # of the battery as it is
LARGE_SCRATCH: Final = Path("/dev/shm")  # noqa: S108 - its content may be lost: no disk to wait for


@dataclass(frozen=True)
class Vehicle:
    """One that has kept the breach, and one whose disk is new, with the same bundle."""

    bundle: Bundle
    who: Identity
    model: VoltageModel
    twin: Twin
    with_trace: State
    without_trace: State


@cache
def the_vehicle() -> Vehicle:
    """Made once in a process; its folder goes with the process."""
    bundle = the_bundle()
    trusted = TrustStore({key_id(KEY.public_key()): KEY.public_key()})
    who = Identity(VEHICLE, bundle.sha256, bundle.manifest, trusted)
    model = VoltageModel(bundle)
    nominal = calibration.prior(bundle.manifest)
    twin = Twin(bundle.manifest, model, nominal, 0, calibration.Settings())
    with_trace = new_state("kept.db")
    keep_breach(with_trace, who, model)
    return Vehicle(bundle, who, model, twin, with_trace, new_state("new.db"))


def new_state(name: str) -> State:
    """An empty state in the folder of this process."""
    return State(_folder() / name, VEHICLE, the_bundle().sha256)


def keep_breach(state: State, who: Identity, model: VoltageModel) -> None:
    """The breach that the seeds answer."""
    breach = breach_of(who, model)
    with state.transaction() as db:
        kept.keep_trace(db, breach.message_id, breach.odometer, encode(breach))


def breach_of(who: Identity, model: VoltageModel) -> Breach:
    """A trip of the battery as it is."""
    distance = np.linspace(0.0, 300.0, 20)
    features = np.column_stack([distance, np.full(20, 500.0)])
    voltage = model.predict(features, [GAIN, 0.0])
    return Breach(
        message_id=CAUSE,
        vehicle_id=VEHICLE,
        trip_id="trip-1",
        bundle=who.bundle,
        revision=0,
        odometer=ODOMETER,
        error_v=0.1,
        threshold_v=0.03,
        trace=to_wire(TraceArrays(60.0 * np.arange(20), features, voltage)),
    )


def samples(odometer: float, count: int = 4) -> Iterator[Sample]:
    """The beginning of a trip at that odometer."""
    for i in range(count):
        signals = {"distance_km": 10.0 * i, "load_kg": 500.0}
        yield Sample(START + 60.0 * i, odometer, signals, 3.9, "trip-2")


def revisions(who: Identity) -> list[Revision]:
    """Such as the vehicle takes: of a breach, of the fleet's prior, of a replaced battery."""
    prior = calibration.prior(who.manifest)
    breach = Revision(
        vehicle_id=VEHICLE,
        number=1,
        parent_hash=GENESIS,
        base=0,
        bundle=who.bundle,
        odometer=ODOMETER,
        theta=[GAIN, 0.0],
        rate=[1e-6, 0.0],
        covariance=calibration.upper_triangle(prior.covariance),
        rate_growth=[1e-5, 0.0],
        discrepancy_std_v=0.005,
        discrepancy_trips=3.0,
        cause=Cause(kind="breach", message_id=CAUSE, trip_id="trip-1", points=20, nis=20.0),
        created_at=START,
        code_version="0.1.0",
    )
    fleet = Cause(kind="fleet_prior", message_id=CAUSE)
    replaced = Cause(kind="replacement", finding="changed_battery", message_id=CAUSE)
    return [
        breach,
        msgspec.structs.replace(breach, cause=fleet, odometer=0.0, number=7),
        msgspec.structs.replace(breach, cause=replaced, odometer=2 * ODOMETER, resumes_after=3),
        msgspec.structs.replace(breach, rate_growth=[], discrepancy_std_v=None),
    ]


@cache
def the_bundle() -> Bundle:
    """Two features, a gain that ages and an offset, as small as a bundle can be."""
    network = Network(
        input_mean=np.array([200.0, 500.0]),
        input_scale=np.array([100.0, 500.0]),
        weights=(np.array([[1.0, 0.05]]), np.array([[-1.0]])),
        biases=(np.array([0.0]), np.array([0.0])),
        output_mean=3.5,
        output_scale=0.6,
    )
    gains = (Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,)))
    model = write_tflite(network, gains)
    manifest = Manifest(
        schema=1,
        name="fuzzed",
        model_sha256=revision_hash(model),
        features=[
            Feature("distance_km", "km", 0.0, 500.0),
            Feature("load_avg", "kg", 0.0, 2000.0, MovingAverage("load_kg", 60.0)),
        ],
        target=VoltageTarget("voltage_v", "V", 1.0, 5.0),
        parameters=[
            Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0, 1e-8, 1e-6, 1e-16, 0.008, trip_std=0.002),
            Parameter("offset", "V", 0.0, 0.05, -0.5, 0.5, 1e-9, point_std=0.001),
        ],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=3.1,
        error_threshold_v=0.03,
    )
    folder = _folder() / "bundle"
    folder.mkdir()
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    return load_bundle(folder)


_AT_EXIT: Final = ExitStack()


@cache
def _folder() -> Path:
    where = LARGE_SCRATCH if LARGE_SCRATCH.is_dir() else None
    scratch = tempfile.TemporaryDirectory(prefix="twin-fuzz-", dir=where)
    return Path(_AT_EXIT.enter_context(scratch))


def clean_up() -> None:
    """Remove that folder, where the process ends without saying goodbye."""
    _AT_EXIT.close()
