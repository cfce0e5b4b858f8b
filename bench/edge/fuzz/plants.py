"""Faults to plant: a harness that cannot find them finds nothing.

Must never be loaded but by a campaign in a process of its own, or by a test that takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from common import calibration, messages, trust
from common.errors import MalformedMessageError
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
    getattr(plant.owner, plant.attribute)  # a plant that replaces nothing breaks nothing
    setattr(plant.owner, plant.attribute, plant.broken)


def _unguarded(content: bytes, kind: type[T], _schema: int) -> T:
    """Forgets that JSON may be nested too deeply."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError(kind.__name__, str(error)) from error


PLANTS: Final[Mapping[str, Plant]] = {
    "no signature check": Plant(
        "revisions", trust, "check_signature", lambda *_: None, "UnsignedAcceptanceError"
    ),
    "anybody names keys": Plant(
        "keys", trust, "_check_author", lambda *_: None, "UnsignedAcceptanceError"
    ),
    "no bounds": Plant(
        "revisions", calibration, "is_inside_bounds", lambda *_: True, "BrokenPromiseError"
    ),
    "no ranges": Plant("can", can_frames, "_implausible", lambda *_: None, "BrokenPromiseError"),
    "no depth": Plant("messages", messages, "decode_document", _unguarded, "RecursionError"),
}
