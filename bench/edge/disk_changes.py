"""What a program does to one folder: every write, size, name and sync, in order.

Must never hold anything but these steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes into a file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file is cut, or grown by zeros."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What was written into the file before is on the disk when this returns."""

    file: int


@dataclass(frozen=True, slots=True)
class Name:
    """The folder calls a file by a name; `file` None: no more."""

    name: str
    file: int | None


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """The names are on the disk when this returns."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the program says of itself at this point, through its file of marks."""

    content: Mapping[str, Any]


Change = Write | Resize | Sync | SyncFolder | tuple[Name, ...] | Mark
"""One step; names that change together (a rename) are one."""
