"""Turn the bytes of a topic into a message that may be believed, or say why not.

Pure. Must never let a message pass that speaks for another vehicle or does not fit its bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from cloud.bundles import Catalogue
from cloud.errors import ForeignVehicleError
from common.errors import MalformedMessageError, TopicError
from common.messages import (
    Acknowledgement,
    Breach,
    MessageId,
    Provisional,
    Status,
    TripSummary,
    decode,
)
from common.release import BundleAck, Fetch
from common.revision import check_states
from common.topics import Kind, parse_topic
from common.trace import from_wire

Upward = TripSummary | Breach | Status | Acknowledgement | Provisional | Fetch | BundleAck

KINDS: Final[dict[Kind, type[Upward]]] = {
    "trip": TripSummary,
    "breach": Breach,
    "status": Status,
    "ack": Acknowledgement,
    "fetch": Fetch,
    "bundle_ack": BundleAck,
    "provisional": Provisional,
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker delivered it. `mid` and `connection` are what its PUBACK needs."""

    topic: str
    payload: bytes
    retained: bool = False
    qos: int = 1
    mid: int = 0
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """Who waits for the receipt of which message."""

    vehicle_id: str
    kind: Kind
    message_id: str


class _Named(msgspec.Struct):
    message_id: MessageId


def refused_offer(delivery: Delivery) -> Offer | None:
    """What a refused delivery was, as far as topic and payload still tell."""
    try:
        vehicle_id, kind = parse_topic(delivery.topic)
        named = msgspec.json.decode(delivery.payload, type=_Named)
    except (TopicError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Offer(vehicle_id, kind, named.message_id) if kind in KINDS else None


def interpret(topic: str, payload: bytes, catalogue: Catalogue) -> Upward:
    """The message on `topic`. Raises ContractError: what is wrong with it."""
    vehicle_id, kind = parse_topic(topic)
    expected = KINDS.get(kind)
    if expected is None:
        raise TopicError("topic of a vehicle's message", topic)
    message = _decode(payload, expected)
    if message.vehicle_id != vehicle_id:
        raise ForeignVehicleError(vehicle_id, message.vehicle_id)
    if isinstance(message, Breach):
        _check_breach(message, catalogue)
    if isinstance(message, TripSummary):
        _check_trip(message, catalogue)
    if isinstance(message, Provisional):
        _check_provisional(message, catalogue)
    return message


def _decode(payload: bytes, expected: type[Upward]) -> Upward:
    message: Upward = decode(payload, expected)
    return message


def _check_breach(breach: Breach, catalogue: Catalogue) -> None:
    """Of a bundle that this service does not know (yet), the trace is checked when it does."""
    manifest = catalogue.find(breach.bundle)
    if manifest is not None:
        from_wire(breach.trace, manifest)


def _check_provisional(made: Provisional, catalogue: Catalogue) -> None:
    check_states("Provisional", made)
    manifest = catalogue.find(made.bundle)
    if manifest is not None and len(made.theta) != len(manifest.parameters):
        problem = f"it has {len(made.theta)} parameters, not {len(manifest.parameters)}"
        raise MalformedMessageError("Provisional", problem)


def _check_trip(trip: TripSummary, catalogue: Catalogue) -> None:
    if trip.odometer_end < trip.odometer_start:
        raise MalformedMessageError("TripSummary", "its odometer runs backwards")
    manifest = catalogue.find(trip.bundle)
    if manifest is not None and len(trip.feature_means) != len(manifest.features):
        problem = f"it has {len(trip.feature_means)} feature means, not {len(manifest.features)}"
        raise MalformedMessageError("TripSummary", problem)
