"""One measured figure beside its goals, and the table of them all.

Pure but for the printing. Must never measure anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """What was measured, in `unit`; met when it is at most `least`, or at least where `is_floor`.

    `note` says how it was measured, or names the peer and the ratio to it. Without goals a figure
    is told for information.
    """

    name: str
    value: float
    unit: str
    least: float | None = None
    aim: float | None = None
    is_floor: bool = False
    note: str = ""

    @property
    def met(self) -> str:
        """`aim`, `yes`, `NO`, or empty without a goal."""
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        if self.least is None:
            return ""
        return "yes" if self._reaches(self.least) else "NO"

    def _reaches(self, goal: float) -> bool:
        return self.value >= goal if self.is_floor else self.value <= goal


def document(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """For a program that reads."""
    return [{**asdict(figure), "met": figure.met} for figure in figures]


def print_table(title: str, figures: Iterable[Figure], console: Console) -> None:
    """For a person."""
    table = Table(title=title)
    for heading in ("figure", "measured", "at least", "aim", "met", "how"):
        table.add_column(heading, justify="left" if heading in {"figure", "how"} else "right")
    for figure in figures:
        unit = f" {figure.unit}" if figure.unit else ""
        goals = ("" if goal is None else f"{goal:g}{unit}" for goal in (figure.least, figure.aim))
        table.add_row(figure.name, f"{figure.value:.4g}{unit}", *goals, figure.met, figure.note)
    console.print(table)
