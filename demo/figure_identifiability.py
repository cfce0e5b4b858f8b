"""Figure of what trips can tell apart: correlations between candidates, doubt that is left.

Must never choose; it shows what the manifest carries.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cloud.training.identifiability import percent
from cloud.training.selection import MAX_CORRELATION, MAX_POSTERIOR_STD
from common.manifest import Identifiability
from demo.figure_style import (
    EXTRA,
    FROZEN,
    INK,
    LIVING,
    MUTED,
    PALE,
    UPDATE,
    Drawing,
    LeftOut,
    legend_on_top,
    new_figure,
    short_name,
)
from demo.results import RunResults

TITLE = "What a trip can tell apart"
BAR = 0.36
OPAQUE = 0.75


def identifiability(results: RunResults) -> Drawing | LeftOut:
    """Figure 7: pairwise posterior correlations, and the doubt left after one trip and ten."""
    study = results.manifest.sensitivity
    found = study.identifiability if study else None
    if found is None:
        reason = "The bundle does not say what trips can tell apart: an older version trained it."
        return LeftOut("identifiability", TITLE, reason)
    figure = new_figure(1.9 + 0.38 * len(found.compared))
    cells, bars = figure.subplots(1, 2, width_ratios=[1.7, 1])
    _draw_correlations(cells, found)
    _draw_doubt(bars, found)
    legend_on_top(figure, bars)
    caption = (
        "Left, the posterior correlation of each two candidates estimated from one typical trip "
        "(near +1 or -1 the data fix one combination of both only, and of two beyond "
        f"{MAX_CORRELATION:g}, framed, the rule takes one); right, how much of the prior standard "
        "deviation of the selected parameters, estimated together, is left (ten trips must leave "
        f"less than {100 * MAX_POSTERIOR_STD:.0f} %, dashed), with a condition number of the "
        f"Fisher information of {_conditions(found)}."
    )
    return Drawing("identifiability", TITLE, caption, _story(found), figure)


def _draw_correlations(axes: Axes, found: Identifiability) -> None:
    count = len(found.compared)
    for row, column in np.ndindex(count, count):
        if column < row:
            _draw_cell(axes, row, column, found.pairwise[row][column])
    axes.set_xlim(-0.5, count - 1.5)
    axes.set_ylim(count - 0.5, 0.5)
    axes.set_yticks(range(1, count), [short_name(name) for name in found.compared[1:]])
    axes.set_xticks(
        range(count - 1),
        [short_name(name) for name in found.compared[:-1]],
        rotation=40,
        ha="right",
    )
    labels = [*zip(axes.get_yticklabels(), found.compared[1:], strict=True)]
    labels += [*zip(axes.get_xticklabels(), found.compared[:-1], strict=True)]
    for label, name in labels:
        label.set(color=INK if name in found.names else MUTED)
        label.set_fontweight("bold" if name in found.names else "normal")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_cell(axes: Axes, row: int, column: int, value: float) -> None:
    beyond = abs(value) > MAX_CORRELATION
    axes.add_patch(
        Rectangle(
            (column - 0.46, row - 0.46),
            0.92,
            0.92,
            facecolor=LIVING if value > 0 else FROZEN,
            alpha=OPAQUE * abs(value),
            linewidth=0,
        )
    )
    if beyond:
        frame = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=UPDATE)
        axes.add_patch(frame)
    axes.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=7.5)


def _draw_doubt(axes: Axes, found: Identifiability) -> None:
    rows = np.arange(len(found.names))
    for place, (learnt, colour) in enumerate(zip(found.learnt, (EXTRA, LIVING), strict=False)):
        left = 100 * np.array(learnt.posterior_std)
        at = rows + (place - 0.5) * BAR
        label = "after one trip" if learnt.trips == 1 else f"after {learnt.trips} trips"
        axes.barh(at, left, height=BAR, color=colour, label=label)
        for y, share in zip(at, left, strict=True):
            axes.text(share + 1.5, y, percent(share / 100), va="center", fontsize=8)
    axes.axvline(100 * MAX_POSTERIOR_STD, color=PALE, linestyle="--", linewidth=1.0)
    axes.set_yticks(rows, [short_name(name) for name in found.names])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 115)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("doubt left (% of the prior)")
    axes.grid(visible=False, axis="y")


def _conditions(found: Identifiability) -> str:
    told = (
        f"{learnt.condition_number:,.3g} after {learnt.trips} trip{'s' * (learnt.trips > 1)}"
        for learnt in found.learnt
    )
    return ", ".join(told)


def _story(found: Identifiability) -> str:
    names = found.compared
    pairs = [
        f"{names[i]} with {names[j]} {found.pairwise[i][j]:+.2f}"
        for i, j in np.ndindex(len(names), len(names))
        if i < j and abs(found.pairwise[i][j]) > MAX_CORRELATION
    ]
    apart = f"Not to be told apart: {', '.join(pairs)}. " if pairs else ""
    return f"{apart}Of all combinations, {found.weakest}."
