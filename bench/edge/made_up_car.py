"""A made-up car whose trips are a pure function of their number: what a trip is, is known before.

A tiny model that is built in a millisecond; every third trip breaches, whatever revision is in
force; each revision is a little better than the one before on every trip. Must never depend on a
clock or on what an agent makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.training.candidates import Kind, Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common import calibration
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.manifest import Feature, Health, Manifest, Parameter, encode_manifest
from common.manifest import Target as VoltageTarget
from common.messages import encode, message_id
from common.model import VoltageModel
from common.revision import GENESIS, Cause, Revision, encode_revision, revision_hash
from common.signing import sign

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))  # signs for made-up cars alone
FIRST_START: Final = 1_700_000_000.0
SAMPLES: Final = 24
EVERY_S: Final = 120.0
GAIN_OF_BREACHES: Final = 1.3
GAIN_OF_SILENCE: Final = 1.02  # what the revisions come near to

_NETWORK: Final = Network(
    input_mean=np.array([100.0]),
    input_scale=np.array([60.0]),
    weights=(np.array([[1.0]]), np.array([[-1.0]])),
    biases=(np.array([0.0]), np.array([0.0])),
    output_mean=3.5,
    output_scale=0.6,
)
_PARAMETERS: Final = [
    Parameter("gain", "1", 1.0, 0.1, 0.5, 2.0),
    Parameter("offset", "V", 0.0, 0.05, -0.5, 0.5),
]


def write_bundle(folder: Path) -> Bundle:
    """The bundle of every made-up car, and its trusted key beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write_tflite(
        _NETWORK, (Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,)))
    )
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(_manifest(revision_hash(model))))
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    folder.with_suffix(".pem").write_bytes(public)
    return load_bundle(folder)


def _manifest(model_sha256: str) -> Manifest:
    return Manifest(
        schema=1,
        name="made-up",
        model_sha256=model_sha256,
        features=[Feature("distance_km", "km", 0.0, 500.0)],
        target=VoltageTarget("voltage_v", "V", 1.0, 5.0),
        parameters=_PARAMETERS,
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=3.1,
        error_threshold_v=0.03,
        health=Health("distance_km", 0.0, 500.0, {}),
    )


def breaches(number: int) -> bool:
    """Whether this trip is above the threshold."""
    return number % 3 == 1


def breaches_before(number: int) -> int:
    """How many of the trips 0 … number - 1 breach."""
    return (number + 1) // 3


def trip_id(number: int) -> str:
    """The id of a trip, which tells its number."""
    return f"t{number:06d}"


def number_of(named: str) -> int | None:
    """The number in a trip's id; None for an id that no made-up trip has."""
    tail = named.removeprefix("t")
    return int(tail) if tail.isdigit() and trip_id(int(tail)) == named else None


@dataclass(frozen=True)
class Car:
    """Makes the trips of one vehicle."""

    vehicle_id: str
    bundle: Bundle
    model: VoltageModel

    def rows(self, number: int) -> Iterator[dict[str, Any]]:
        """One trip as its source gives it: SAMPLES rows over 150 km, one every two minutes."""
        distance = np.linspace(0.0, 150.0, SAMPLES)
        gain = GAIN_OF_BREACHES if breaches(number) else GAIN_OF_SILENCE
        voltage = self.model.predict(distance[:, None], [gain, 0.0])
        for i in range(SAMPLES):
            yield {
                "trip_id": trip_id(number),
                "time_s": started_at(number) + EVERY_S * i,
                "odometer": odometer_at(number) + float(distance[i]),
                "distance_km": float(distance[i]),
                "voltage_v": float(voltage[i]),
            }

    def revision(self, number: int, cause_trip: int, **changes: Any) -> bytes:
        """The signed revision of that number, as it stands on the retained topic."""
        prior = calibration.prior(self.bundle.manifest)
        named = trip_id(cause_trip)
        made = {
            "vehicle_id": self.vehicle_id,
            "number": number,
            "parent_hash": GENESIS,
            "base": 0,
            "bundle": self.bundle.sha256,
            "odometer": 0.0,
            "theta": theta(number),
            "rate": [0.0, 0.0],
            "covariance": calibration.upper_triangle(prior.covariance),
            "cause": Cause(
                kind="breach",
                message_id=message_id(self.vehicle_id, named, "breach"),
                trip_id=named,
                points=50,
                nis=50.0,
                error_before_v=0.1,
                error_after_v=0.01,
            ),
            "created_at": FIRST_START,
            "code_version": "0.1.0",
        }
        return encode(sign(encode_revision(Revision(**{**made, **changes})), KEY))


def car(vehicle_id: str, bundle: Bundle) -> Car:
    """A car that drives by this bundle."""
    return Car(vehicle_id, bundle, VoltageModel(bundle))


def theta(number: int) -> list[float]:
    """The parameters of a revision; 0 is nominal, each next one nearer to the truth."""
    return [1.0 + (GAIN_OF_SILENCE - 1.0) * (1.0 - 0.99**number), 0.0]


def started_at(number: int) -> float:
    """Unix time of a trip's first sample: an hour apart."""
    return FIRST_START + 3600.0 * number


def odometer_at(number: int) -> float:
    """Kilometres at a trip's start."""
    return 1000.0 + 160.0 * number
