"""Faults to plant: a harness that cannot find them finds nothing.

Must never be loaded but by a campaign in a process of its own, or by a test that takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from common import calibration, messages
from common.errors import MalformedMessageError
from common.messages import SignedRevision
from common.signing import TrustedKeys
from edge_agent import decisions
from edge_agent.sources import can_frames

T = TypeVar("T")


@dataclass(frozen=True)
class Plant:
    """`owner.attribute` becomes `broken`; `target` has to raise `found`."""

    target: str
    owner: Any
    attribute: str
    broken: Callable[..., Any]
    found: str


def planted(name: str) -> None:
    """Break the agent in this process."""
    plant = PLANTS[name]
    setattr(plant.owner, plant.attribute, plant.broken)


def _unverified(message: SignedRevision, _trusted: TrustedKeys) -> bytes:
    return message.revision.encode()


def _unguarded(content: bytes, kind: type[T], _schema: int) -> T:
    """Forgets that JSON may be nested too deeply."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError(kind.__name__, str(error)) from error


PLANTS: Final[Mapping[str, Plant]] = {
    "no signature check": Plant(
        "revisions", decisions, "verify", _unverified, "UnsignedAcceptanceError"
    ),
    "no bounds": Plant(
        "revisions", calibration, "is_inside_bounds", lambda *_: True, "BrokenPromiseError"
    ),
    "no ranges": Plant("can", can_frames, "_implausible", lambda *_: None, "BrokenPromiseError"),
    "no depth": Plant("messages", messages, "decode_document", _unguarded, "RecursionError"),
}
