"""Chord plots: names on a circle, ribbons between them as wide as what they share.

Knows Sobol pairs and angles only. Must never draw an effect that cannot be told from zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from common.manifest import PairIndex
from demo.results import FloatArray

FULL_CIRCLE = 2 * math.pi
# The shares of the circle that a pair of index 1 takes at each of its ends, at most, and that
# all ribbons together may take; the arcs share out what is left.
WIDEST_PAIR = 0.6
FULLEST = 0.72
GAP = 0.035
STEPS = 16
RING_IN, RING_OUT, NAME_AT = 1.015, 1.055, 1.10
NEARLY_ABOVE = 0.12
RADIAL_NAMES_FROM = 15

Span = tuple[float, float]


@dataclass(frozen=True)
class Arc:
    """The piece of the circle that belongs to one name; radians clockwise from the top."""

    name: str
    start: float
    stop: float

    @property
    def middle(self) -> float:
        """Where its name stands."""
        return (self.start + self.stop) / 2


@dataclass(frozen=True)
class Ribbon:
    """One pair and the two pieces of the circle that it joins."""

    pair: PairIndex
    first: Span
    second: Span


def significant(pairs: Sequence[PairIndex]) -> list[PairIndex]:
    """The pairs whose 95 % interval lies above zero, the strongest first."""
    kept = [pair for pair in pairs if pair.index - pair.ci > 0 and pair.first != pair.second]
    return sorted(kept, key=lambda pair: -pair.index)


def arcs(names: Sequence[str], pairs: Sequence[PairIndex]) -> list[Arc]:
    """One arc for each name, clockwise: as wide as its ribbons and an equal share of the rest."""
    margin = _margin(names, pairs)
    stops = np.cumsum([GAP + margin + sum(_widths(name, names, pairs)) for name in names])
    starts = [GAP / 2, *(stops[:-1] + GAP / 2)]
    return [Arc(*arc) for arc in zip(names, starts, stops - GAP / 2, strict=True)]


def _widths(name: str, names: Sequence[str], pairs: Sequence[PairIndex]) -> list[float]:
    per_index = _radians_per_index(names, pairs)
    return [per_index * pair.index for pair in pairs if name in (pair.first, pair.second)]


def _radians_per_index(names: Sequence[str], pairs: Sequence[PairIndex]) -> float:
    total = 2 * sum(pair.index for pair in pairs)
    room = FULLEST * (FULL_CIRCLE - GAP * len(names))
    return min(WIDEST_PAIR * FULL_CIRCLE, room / total) if total else 0.0


def _margin(names: Sequence[str], pairs: Sequence[PairIndex]) -> float:
    """What each arc has beyond its ribbons, half of it at each end; radians."""
    taken = sum(sum(_widths(name, names, pairs)) for name in names)
    return (FULL_CIRCLE - GAP * len(names) - taken) / max(1, len(names))


def ribbons(names: Sequence[str], pairs: Sequence[PairIndex]) -> list[Ribbon]:
    """One ribbon for each pair; neighbours on an arc are ordered so that few ribbons cross."""
    per_index = _radians_per_index(names, pairs)
    spans: dict[tuple[str, int], Span] = {}
    for position, arc in enumerate(arcs(names, pairs)):
        at = arc.start + _margin(names, pairs) / 2
        for number in _outgoing(arc.name, position, names, pairs):
            width = per_index * pairs[number].index
            spans[arc.name, number] = (at, at + width)
            at += width
    return [Ribbon(p, spans[p.first, i], spans[p.second, i]) for i, p in enumerate(pairs)]


def _outgoing(
    name: str, position: int, names: Sequence[str], pairs: Sequence[PairIndex]
) -> list[int]:
    """Numbers of the pairs of `name`: the far side round the circle first."""
    own = [i for i, pair in enumerate(pairs) if name in (pair.first, pair.second)]

    def steps_ahead(number: int) -> int:
        pair = pairs[number]
        partner = pair.second if pair.first == name else pair.first
        return (names.index(partner) - position) % len(names)

    return sorted(own, key=lambda number: -steps_ahead(number))


def draw_chords(
    axes: Axes, names: Sequence[str], pairs: Sequence[PairIndex], colours: Mapping[str, str]
) -> None:
    """Draw the circle; `colours` of each name, a ribbon takes that of its `first`."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    for ribbon in reversed(ribbons(names, pairs)):
        colour = colours[ribbon.pair.first]
        axes.add_patch(PathPatch(_outline(ribbon), facecolor=colour, alpha=0.55, linewidth=0))
    for arc in arcs(names, pairs):
        axes.add_patch(PathPatch(_ring(arc), facecolor=colours[arc.name], linewidth=0))
        _write_name(axes, arc, radial=len(names) >= RADIAL_NAMES_FROM)


def _point(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.sin(angle), radius * math.cos(angle)


def _along(span: Span, radius: float) -> FloatArray:
    angles = np.linspace(span[0], span[1], STEPS)
    return np.column_stack([radius * np.sin(angles), radius * np.cos(angles)])


def _outline(ribbon: Ribbon) -> Outline:
    """Along the first arc, bent over towards the centre, along the second, and back."""
    first, second = _along(ribbon.first, 1.0), _along(ribbon.second, 1.0)
    centre = np.zeros((1, 2))
    points = np.concatenate([first, centre, second, centre, first[:1]])
    bend = [Outline.CURVE3, Outline.CURVE3]
    codes = [Outline.MOVETO, *[Outline.LINETO] * (STEPS - 1), *bend]
    codes += [*[Outline.LINETO] * (STEPS - 1), *bend]
    return Outline(points, codes)


def _ring(arc: Arc) -> Outline:
    span = (arc.start, arc.stop)
    return Outline(np.concatenate([_along(span, RING_IN), _along(span, RING_OUT)[::-1]]))


def _write_name(axes: Axes, arc: Arc, *, radial: bool) -> None:
    x, y = _point(arc.middle, NAME_AT)
    right = x >= 0
    turn = 90 - math.degrees(arc.middle) + (0 if right else 180)
    beside = radial or abs(x) > NEARLY_ABOVE
    axes.text(
        x,
        y,
        arc.name,
        rotation=turn if radial else 0,
        rotation_mode="anchor",
        ha=("left" if right else "right") if beside else "center",
        va="center",
    )
