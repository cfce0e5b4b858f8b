"""What the tests of the state file share: a state on disk whose pages can be damaged, page by page.

A file is damaged as it lies on the disk: with its log carried over, so that each page stands once.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge_agent.storage import outbox
from edge_agent.storage.state import State
from edge_agent.storage.state_schema import PAGE_BYTES

Damage = Callable[[bytearray], None]


def zeroed(page: bytearray) -> None:
    page[:] = bytes(len(page))


def overwritten(page: bytearray) -> None:
    page[:64] = b"\xff" * 64


def flipped(page: bytearray) -> None:
    """Three bits, anywhere: SQLite itself sees only some of it."""
    rng = random.Random(bytes(page))
    for _ in range(3):
        page[rng.randrange(len(page))] ^= 1 << rng.randrange(8)


DAMAGES: dict[str, Damage] = {"zeroed": zeroed, "overwritten": overwritten, "flipped": flipped}


def carry_over(path: Path) -> None:
    """Everything into the database, and no log beside it: the last to close it does that."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("SELECT COUNT(*) FROM outbox").fetchone()


def pages_of(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES


def damage_page(path: Path, number: int, damage: Damage) -> None:
    """`number` counts from 1, as SQLite's own."""
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE_BYTES)
        page = bytearray(file.read(PAGE_BYTES))
        damage(page)
        file.seek((number - 1) * PAGE_BYTES)
        file.write(page)


def page_with(path: Path, content: bytes) -> int:
    """The number of the page on which this stands."""
    return path.read_bytes().index(content) // PAGE_BYTES + 1


def readable(state: State) -> list[tuple[str, str, bytes]]:
    """(kind, id, payload) of what waits, mending what shows damage as the agent does."""
    for _ in range(3):
        try:
            waiting = outbox.waiting(state.connection, 10_000)
            return [
                (one.kind, one.message_id, outbox.payload(state.connection, one.seq))
                for one in waiting
            ]
        except sqlite3.Error as error:
            assert state.note(error), error  # noqa: PT017 - what is no damage is a fault
            state.mend()
    raise AssertionError("the mended file is damaged again")


def kinds(state: State) -> Counter[str]:
    return Counter(kind for kind, _, _ in readable(state))
