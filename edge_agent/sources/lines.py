"""Samples from a program's lines: one JSON object a line, on standard input.

The object names what `[source]` names: the time, the odometer, each signal, the measured voltage,
and where the program knows them `trip_id` and `ignition`. Must never hold more than one line, nor
stop for a bad one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from common.manifest import Manifest
from edge_agent.config import Source
from edge_agent.samples import Sample
from edge_agent.sources.items import SHOWN_CHARACTERS, BadRow, Item, to_sample
from edge_agent.timekeeping.clock import Clock

LONGEST_LINE: Final = 65_536


def read_json_lines(
    lines: Iterable[str],
    columns: Source,
    manifest: Manifest,
    extra: Iterable[str] = (),
    clock: Clock | None = None,
) -> Iterator[Item]:
    """Samples from one JSON object a line, stamped as they come where there is a clock to do it.

    A line that brings no time of its own then has the clock's.
    """
    for line in lines:
        text = line.strip()
        if text:
            now = None if clock is None else (clock.monotonic(), clock.unix())
            item = _from_json(text, columns, manifest, extra, now and now[1])
            if now is not None and not isinstance(item, BadRow):
                item = item.arrived_at(*now)
            yield item


def bounded_lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a stream; of one that is too long the beginning, which is then no JSON.

    A stray byte costs one line, not the source.
    """
    while raw := stream.readline(LONGEST_LINE):
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            _skip_line(stream)
        yield raw.decode(errors="replace")


def _skip_line(stream: BinaryIO) -> None:
    while (raw := stream.readline(LONGEST_LINE)) and not raw.endswith(b"\n"):
        pass


def _from_json(
    text: str,
    columns: Source,
    manifest: Manifest,
    extra: Iterable[str],
    unix_s: float | None,
) -> Sample | BadRow:
    try:
        row = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return BadRow(text[:SHOWN_CHARACTERS], f"no JSON: {error}")
    if not isinstance(row, dict):
        return BadRow(text[:SHOWN_CHARACTERS], "no JSON object")
    if unix_s is not None:
        row.setdefault(columns.time_s, unix_s)
    return to_sample(row, columns, manifest, extra)
