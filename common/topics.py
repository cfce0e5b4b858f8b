"""Topic names of the contract, valid on AWS IoT Core and Mosquitto alike.

Must never accept an identifier that could widen a topic filter or leave its own vehicle's tree.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from common.errors import TopicError

Kind = Literal[
    "trip",
    "breach",
    "status",
    "ack",
    "fetch",
    "bundle_ack",
    "provisional",
    "parameters",
    "receipt",
    "bundle",
    "chunk",
    "keys",
]
UPWARD: Final[tuple[Kind, ...]] = (
    "trip",
    "breach",
    "status",
    "ack",
    "fetch",
    "bundle_ack",
    "provisional",
)
DOWNWARD: Final[tuple[Kind, ...]] = ("parameters", "receipt", "bundle", "chunk", "keys")
_PREFIX: Final = "twin/v1"
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def topic(vehicle_id: str, kind: Kind) -> str:
    """The topic of one kind of message of one vehicle. Raises TopicError."""
    return f"{_PREFIX}/{check_identifier('vehicle id', vehicle_id)}/{kind}"


def subscription(kind: Kind) -> str:
    """The cloud's filter for one kind of message of every vehicle."""
    return f"{_PREFIX}/+/{kind}"


def parse_topic(name: str) -> tuple[str, Kind]:
    """(vehicle id, kind) of a topic. Raises TopicError."""
    parts = name.split("/")
    if len(parts) != 4 or "/".join(parts[:2]) != _PREFIX or parts[3] not in get_args(Kind):  # noqa: PLR2004
        raise TopicError("topic of the contract", name)
    kind: Kind = parts[3]  # type: ignore[assignment]  # checked above
    return check_identifier("vehicle id", parts[2]), kind


def check_identifier(what: str, value: str) -> str:
    """`value` itself when it may be part of a topic. Raises TopicError."""
    if not _IDENTIFIER.match(value):
        raise TopicError(what, value)
    return value
