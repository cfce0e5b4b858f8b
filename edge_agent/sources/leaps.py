"""One recorded sample whose time ran ahead is set aside, and not all those that follow it.

Pure; looks one sample ahead, so it is for recorded tables only. Must never judge across two trips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_agent.samples import Sample
from edge_agent.sources.items import SHOWN_CHARACTERS, BadRow, Item


def without_leaps(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; a sample that the next one contradicts, and the one before does not need."""
    before: Sample | None = None
    held: Sample | None = None
    between: list[Item] = []
    for item in items:
        if not isinstance(item, Sample):
            between.append(item)
            continue
        if held is not None:
            if before is not None and _ran_ahead(before, held, item):
                why = f"its time runs {held.time_s - item.time_s:g} s ahead of the sample after it"
                yield BadRow(repr(held)[:SHOWN_CHARACTERS], why)
            else:
                yield held
                before = held
        yield from between
        between.clear()
        held = item
    if held is not None:
        yield held
    yield from between


def _ran_ahead(before: Sample, suspect: Sample, after: Sample) -> bool:
    """The one after follows the one before, and only the one between them is out of order."""
    same = before.trip_id == suspect.trip_id == after.trip_id
    return same and before.time_s < after.time_s <= suspect.time_s
