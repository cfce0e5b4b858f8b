"""Turn the bytes of a topic into a message that may be believed, or say why not.

Pure. Must never let a message pass that speaks for another vehicle or does not fit its bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloud.bundles import Catalogue
from cloud.errors import ForeignVehicleError, UnstorableMessageError
from common.errors import MalformedMessageError, TopicError
from common.messages import Acknowledgement, Breach, Status, TripSummary, decode
from common.topics import Kind, parse_topic
from common.trace import from_wire

Upward = TripSummary | Breach | Status | Acknowledgement

KINDS: Final[dict[Kind, type[Upward]]] = {
    "trip": TripSummary,
    "breach": Breach,
    "status": Status,
    "ack": Acknowledgement,
}
_LARGEST_INTEGER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker delivered it. `mid` and `connection` are what its PUBACK needs."""

    topic: str
    payload: bytes
    retained: bool = False
    qos: int = 1
    mid: int = 0
    connection: int = 0


def interpret(topic: str, payload: bytes, catalogue: Catalogue) -> Upward:
    """The message on `topic`. Raises ContractError: what is wrong with it."""
    vehicle_id, kind = parse_topic(topic)
    expected = KINDS.get(kind)
    if expected is None:
        raise TopicError("topic of a vehicle's message", topic)
    message = _decode(payload, expected)
    if message.vehicle_id != vehicle_id:
        raise ForeignVehicleError(vehicle_id, message.vehicle_id)
    if message.revision > _LARGEST_INTEGER:
        raise UnstorableMessageError(OverflowError("its revision is beyond 64 bits"))
    if isinstance(message, Breach):
        from_wire(message.trace, catalogue.manifest(message.bundle))
    if isinstance(message, TripSummary):
        _check_trip(message, catalogue)
    return message


def _decode(payload: bytes, expected: type[Upward]) -> Upward:
    message: Upward = decode(payload, expected)  # type: ignore[type-var]  # one of the four
    return message


def _check_trip(trip: TripSummary, catalogue: Catalogue) -> None:
    if trip.odometer_end < trip.odometer_start:
        raise MalformedMessageError("TripSummary", "its odometer runs backwards")
    manifest = catalogue.find(trip.bundle)
    if manifest is not None and len(trip.feature_means) != len(manifest.features):
        problem = f"it has {len(trip.feature_means)} feature means, not {len(manifest.features)}"
        raise MalformedMessageError("TripSummary", problem)
