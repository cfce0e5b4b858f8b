"""The revisions that the vehicle keeps: on trial, confirmed, the two before, and judged last.

Trial and confirmed are records of their own, so that falling back is to forget a record. A record
is the signed message as it came: vehicle, bundle and format stand in what is signed, and it is
never restored under another. Each function works inside the caller's transaction.

Must never lower the number below which nothing is taken again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from common.messages import SignedRevision
from edge_agent.storage import kept

TRIAL: Final = "trial"
JUDGED: Final = "judged"
CONFIRMED: Final = ("confirmed", "confirmed-1", "confirmed-2")
"""The newest first: the last three."""
BEFORE_TRIALS: Final = "current"  # where an older agent kept what it ran
NEWEST_FIRST: Final = (CONFIRMED[0], BEFORE_TRIALS, *CONFIRMED[1:])
IN_FORCE: Final = frozenset({TRIAL, *NEWEST_FIRST})
KEPT_FLOORS: Final = 8


def trial(db: sqlite3.Connection) -> SignedRevision | None:
    """What is on trial."""
    return kept.read_parameters(db, TRIAL)


def judged(db: sqlite3.Connection) -> SignedRevision | None:
    """What was judged last, whatever the verdict."""
    return kept.read_parameters(db, JUDGED)


def confirmed(db: sqlite3.Connection) -> Iterator[tuple[str, SignedRevision]]:
    """(slot, record) of what was confirmed, the newest first; what cannot be read is left out."""
    for slot in NEWEST_FIRST:
        found = kept.read_parameters(db, slot)
        if found is not None:
            yield slot, found


def begin_trial(db: sqlite3.Connection, signed: bytes) -> None:
    """From the next trip on it drives; one that was on trial until now gives way to it."""
    kept.write_parameters(db, TRIAL, signed)


def end_trial(db: sqlite3.Connection) -> None:
    """What was confirmed drives again."""
    kept.forget_parameters(db, TRIAL)


def confirm(db: sqlite3.Connection, signed: bytes, bundle: str, number: int) -> None:
    """It is the confirmed one from now on, the one before it the second of three."""
    kept.move_parameters(db, BEFORE_TRIALS, CONFIRMED[0])
    for newer, older in ((CONFIRMED[1], CONFIRMED[2]), (CONFIRMED[0], CONFIRMED[1])):
        kept.move_parameters(db, newer, older)
    kept.write_parameters(db, CONFIRMED[0], signed)
    kept.forget_parameters(db, TRIAL)
    raise_floor(db, bundle, number)


def forget_earlier(db: sqlite3.Connection) -> None:
    """What was confirmed before belongs to a battery that is gone."""
    for slot in CONFIRMED[1:]:
        kept.forget_parameters(db, slot)


def raise_floor(db: sqlite3.Connection, bundle: str, number: int) -> None:
    """From now on nothing older than this is taken for the bundle, whatever is forgotten."""
    kept.write_anchor(db, _floor_name(bundle), str(max(number, floor(db, bundle))).encode())
    kept.bound_anchors(db, "floor-", KEPT_FLOORS)


def floor(db: sqlite3.Connection, bundle: str) -> int:
    """The highest number ever confirmed for this bundle here; 0 where there was none."""
    found = kept.read_anchor(db, _floor_name(bundle))
    return int(found) if found is not None and found.isdigit() else 0


def _floor_name(bundle: str) -> str:
    return f"floor-{bundle}"
