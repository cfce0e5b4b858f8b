"""What a source yields, and how a row of named values becomes a sample.

Pure. Must never drop anything in silence: a row that is no sample is an item with its reason, and
what a source had to skip is an item with its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from common.manifest import Manifest
from edge_agent.config import Source
from edge_agent.samples import Sample

SHOWN_CHARACTERS: Final = 1000
IGNITION: Final = {
    **dict.fromkeys(("1", "1.0", "true", "on", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "off", "no"), False),
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no sample, with its text and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a source could not use, by name and number, with an example of each kind of trouble."""

    counts: Mapping[str, int]
    examples: tuple[BadRow, ...] = field(default=())


Item = Sample | BadRow | Skipped


def signal_names(
    manifest: Manifest, columns: Source | None = None, extra: Iterable[str] = ()
) -> list[str]:
    """The signals that the car must give, whatever is derived replaced by what it derives from.

    `extra` are those that nothing but the detection of trips needs.
    """
    derived = columns.derived if columns is not None else {}
    names: list[str] = []
    for feature in manifest.features:
        average = feature.moving_average
        name = average.signal if average else feature.name
        names.append(derived[name].of if name in derived else name)
    return [name for name in dict.fromkeys([*names, *extra]) if name]


def to_sample(
    row: Mapping[str, Any], columns: Source, manifest: Manifest, extra: Iterable[str] = ()
) -> Sample | BadRow:
    """One row of named values; empty cells are missing signals, not zeros."""
    try:
        numbers = {
            name: float(row[name])
            for name in signal_names(manifest, columns, extra)
            if row.get(name) not in {None, ""}
        }
        return Sample(
            time_s=float(row[columns.time_s]),
            odometer=float(row[columns.odometer]),
            signals=numbers,
            voltage_v=float(row[manifest.target.name]),
            trip_id=_optional_text(row.get(columns.trip_id)),
            ignition=_optional_bool(row.get(columns.ignition)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return BadRow(str(dict(row))[:SHOWN_CHARACTERS], f"{type(error).__name__}: {error}")


def _optional_text(value: object) -> str | None:
    return None if value in {None, ""} else str(value)


def _optional_bool(value: object) -> bool | None:
    return None if value in {None, ""} else IGNITION[str(value).lower()]
