"""What a section of the report is made of, and how a figure is written. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.science.spread import Spread

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The first column is text, the others are numbers."""

    headings: Row
    rows: Sequence[Row]


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph that says what was counted, tables, and the keys of its drawings."""

    title: str
    text: str
    tables: list[Table]
    drawings: tuple[str, ...] = ()


def number(spread: Spread | None, digits: int = 3, scale: float = 1.0) -> str:
    """Mean ± standard deviation, or a dash; the deviation only where there are several."""
    if spread is None or spread.count == 0:
        return "–"
    mean = f"{scale * spread.mean:,.{digits}f}"
    return mean if spread.count < 2 else f"{mean} ± {scale * spread.std:,.{digits}f}"  # noqa: PLR2004


def method_rows(figures: Mapping[str, Spread], prefix: str) -> Iterator[Row]:
    """Error, updates and unseen breaches of every method below the prefix."""
    for name in _names_below(figures, prefix):
        path = f"{prefix}/{name}"
        yield (
            name,
            number(figures.get(f"{path}/error_v"), 4),
            number(figures.get(f"{path}/updates_per_1000"), 0),
            number(figures.get(f"{path}/unseen_per_1000"), 1),
        )


def _names_below(figures: Mapping[str, Spread], prefix: str) -> list[str]:
    ending = "/error_v"
    found = [n for n in figures if n.startswith(f"{prefix}/") and n.endswith(ending)]
    return [name[len(prefix) + 1 : -len(ending)] for name in found]
