"""Every target by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bench.edge.fuzz import (
    can_target,
    key_target,
    message_target,
    revision_target,
    stored_target,
)
from bench.edge.fuzz.target import Target

TARGETS: Final[Mapping[str, Callable[[], Target]]] = {
    "can": can_target.target,
    "messages": message_target.target,
    "revisions": revision_target.target,
    "keys": key_target.target,
    "lines": stored_target.lines_target,
    "checkpoints": stored_target.checkpoint_target,
}


def target_of(name: str) -> Target:
    """The target of that name, ready to run."""
    return TARGETS[name]()
