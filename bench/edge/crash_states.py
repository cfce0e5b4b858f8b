"""What a power cut may leave of a folder, given the steps that were recorded up to it.

Pure. After Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), and CrashMonkey
(Mohan et al., OSDI 2018): what was synced is there; of everything since, anything may be: nothing,
all, the first part, any part; a write torn between sectors; a file that grew without its data; a
name that is not there yet, or still there. Must never damage what was synced.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, TypeVar

from bench.edge.disk_changes import Change, Mark, Name, Resize, Sync, SyncFolder, Write

SECTOR_BYTES: Final = 512

Mode = Literal["nothing", "everything", "first part", "any part", "grown without data"]
MODES: Final[tuple[Mode, ...]] = (
    *("nothing", "everything", "first part", "any part", "grown without data"),
)
Files = dict[str, bytes]
Data = Write | Resize
S = TypeVar("S")


@dataclass
class Disk:
    """What is certainly on it, and what has been written since without a sync."""

    certain: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    certain_names: dict[str, int] = field(default_factory=dict)
    pending: dict[int, list[Data]] = field(default_factory=lambda: defaultdict(list))
    pending_names: list[tuple[Name, ...]] = field(default_factory=list)

    def take(self, change: Change) -> None:
        """One more step."""
        match change:
            case Write() | Resize():
                self.pending[change.file].append(change)
            case Sync(file):
                _carry_out(self.certain[file], self.pending.pop(file, []))
            case SyncFolder():
                for names in self.pending_names:
                    _rename(self.certain_names, names)
                self.pending_names.clear()
            case Mark():
                pass
            case _:
                self.pending_names.append(change)

    @property
    def is_certain(self) -> bool:
        """Whether a power cut could leave but one state."""
        return not self.pending_names and not any(self.pending.values())

    def after_power_cut(self, mode: Mode, rng: random.Random) -> Files:
        """One of the states that a power cut now may leave."""
        names = dict(self.certain_names)
        for change in _survivors(self.pending_names, mode, rng):
            _rename(names, change)
        return {name: self._content(file, mode, rng) for name, file in sorted(names.items())}

    def whole(self) -> Files:
        """As a program sees it that runs on."""
        return self.after_power_cut("everything", random.Random(0))  # noqa: S311 - draws nothing

    def _content(self, file: int, mode: Mode, rng: random.Random) -> bytes:
        content, since = bytearray(self.certain.get(file, b"")), self.pending.get(file, [])
        if mode == "grown without data":
            _carry_out(content, [_without_data(change, rng) for change in since])
        elif mode in {"nothing", "everything"}:
            _carry_out(content, since if mode == "everything" else [])
        else:
            _carry_out(content, _torn(_survivors(since, mode, rng), mode, rng))
        return bytes(content)


def as_found(files: Files) -> list[Change]:
    """The steps that make a folder what it is when the machine comes up again."""
    made: list[Change] = []
    for number, (name, content) in enumerate(files.items()):
        made += [(Name(name, number),), Write(number, 0, content), Sync(number)]
    return [*made, SyncFolder()]


def states(
    changes: Sequence[Change], first: int, wanted: int, rng: random.Random
) -> Iterable[tuple[int, Mode, Files]]:
    """(steps done, mode, files) of up to `wanted` power cuts after the step `first`, in order."""
    cuts = _cuts(changes, first, wanted, rng)
    disk, position = Disk(), 0
    for steps, mode in cuts:
        for change in changes[position:steps]:
            disk.take(change)
        position = steps
        yield steps, mode, disk.after_power_cut(mode, rng)


def _cuts(
    changes: Sequence[Change], first: int, wanted: int, rng: random.Random
) -> list[tuple[int, Mode]]:
    """Moments, each in every mode; drawn when there are more, a quarter of each rare kind.

    Rare are those at which a name is not certain (a state's birth, its being closed), and those at
    which something has just been promised.
    """
    disk = Disk()
    named: list[tuple[int, Mode]] = []
    promised: list[tuple[int, Mode]] = []
    others: list[tuple[int, Mode]] = []
    for steps, change in enumerate(changes, 1):
        disk.take(change)
        if steps > first and (isinstance(change, Mark) or not disk.is_certain):
            modes = MODES[:1] if disk.is_certain else MODES
            kind = promised if isinstance(change, Mark) else others
            kind = named if disk.pending_names else kind
            kind += [(steps, mode) for mode in modes]
    drawn = rng.sample(named, min(wanted // 4, len(named)))
    drawn += rng.sample(promised, min(wanted // 4, len(promised)))
    drawn += _drawn(others, wanted - len(drawn), rng)
    return sorted(drawn, key=lambda cut: cut[0])


def _drawn(cuts: list[tuple[int, Mode]], wanted: int, rng: random.Random) -> list[tuple[int, Mode]]:
    """Once each, and where more are wanted those again that differ each time."""
    again = [cut for cut in cuts if cut[1] in MODES[2:]]
    several = cuts + again * (wanted // max(1, len(again)))
    return rng.sample(several, min(wanted, len(several)))


def _survivors(since: Sequence[S], mode: Mode, rng: random.Random) -> list[S]:
    """Which of the steps since the last sync reached the disk, in their order."""
    if mode == "nothing":
        return []
    if mode == "first part":
        return list(since[: rng.randint(0, len(since))])
    if mode == "any part":
        return [change for change in since if rng.random() < 0.5]  # noqa: PLR2004
    return list(since)


def _torn(reached: list[Data], mode: Mode, rng: random.Random) -> list[Data]:
    """The last write that was under way reached the disk in part; any of them, in `any part`."""
    torn: list[Data] = []
    for index, change in enumerate(reached):
        is_hit = index == len(reached) - 1 or (mode == "any part" and rng.random() < 0.2)  # noqa: PLR2004
        if is_hit and isinstance(change, Write) and rng.random() < 0.7:  # noqa: PLR2004
            torn += _sectors(change, rng)
        else:
            torn.append(change)
    return torn


def _sectors(write: Write, rng: random.Random) -> list[Data]:
    """Some of the sectors of one write; a sector itself is written whole or not at all."""
    first = -(-write.offset // SECTOR_BYTES) * SECTOR_BYTES - write.offset
    edges = [0, *range(first or SECTOR_BYTES, len(write.data), SECTOR_BYTES), len(write.data)]
    parts = [(a, b) for a, b in pairwise(edges) if rng.random() < 0.5]  # noqa: PLR2004
    return [Write(write.file, write.offset + a, write.data[a:b]) for a, b in parts]


def _without_data(change: Data, rng: random.Random) -> Data:
    """The file's size was written down, its new blocks were not: they read as zeros."""
    if isinstance(change, Write) and rng.random() < 0.5:  # noqa: PLR2004
        return Write(change.file, change.offset + len(change.data), b"")
    return change


def _carry_out(content: bytearray, since: Iterable[Data]) -> None:
    for change in since:
        if isinstance(change, Resize):
            size = change.size
            del content[size:]
            content.extend(bytes(size - len(content)))
            continue
        end = change.offset + len(change.data)
        content.extend(bytes(max(0, end - len(content))))
        content[change.offset : end] = change.data


def _rename(names: dict[str, int], change: tuple[Name, ...]) -> None:
    for name in change:
        names.pop(name.name, None)
        if name.file is not None:
            names[name.name] = name.file
