"""Figures of the sensitivity study that chose the parameters: Sobol bars and chord plot.

Must never choose; it shows the indices and the choice that the manifest carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from common.manifest import GroupIndex, PairIndex, Sensitivity, SobolIndex
from demo.chord import draw_chords, significant
from demo.figure_style import (
    EXTRA,
    INK,
    LIVING,
    MUTED,
    PALE,
    Drawing,
    LeftOut,
    legend_on_top,
    new_figure,
    short_name,
)
from demo.results import RunResults

MOST_BARS = 24
MOST_PAIRS = 8
NO_STUDY = "The bundle carries no sensitivity study, so there are no indices to draw."
BAR = 0.36


def sobol_bars(results: RunResults) -> Drawing | LeftOut:
    """Figure 5: first-order and total Sobol indices with 95 % intervals, selected ones marked."""
    title = "What moves the predicted voltage: Sobol indices"
    study = results.manifest.sensitivity
    if study is None or not study.indices:
        return LeftOut("sobol", title, NO_STUDY)
    ranked = sorted(study.indices, key=lambda index: -index.total)
    shown = ranked[:MOST_BARS]
    groups = sorted(study.groups, key=lambda group: -group.total)
    figure = new_figure(1.2 + 0.29 * len(shown) + (0.7 + 0.29 * len(groups) if groups else 0))
    heights = [len(shown), len(groups)][: 1 + bool(groups)]
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)
    axes, *below = panels[:, 0]
    _draw_bars(axes, shown, [_marked(index) for index in shown])
    for label, index in zip(axes.get_yticklabels(), shown, strict=True):
        label.set(color=INK if index.selected else MUTED)
        label.set_fontweight("bold" if index.selected else "normal")
    for panel in below:
        _draw_bars(panel, groups, [group.name for group in groups])
        panel.set_title("Groups, each varied as one")
        panel.set_xlim(axes.get_xlim())
    legend_on_top(figure, axes)
    rest = len(ranked) - len(shown)
    omitted = f"; the {rest} smallest are left out" if rest else ""
    caption = (
        "Share of the variance of the voltage (no unit, 0 to 1) that an input causes alone (first "
        "order) and with all its interactions (total), whiskers are 95 % intervals; the inputs "
        f"with a filled mark were selected for calibration{omitted}."
    )
    return Drawing("sobol", title, caption, _bars_story(study, ranked), figure)


def _draw_bars(axes: Axes, shown: Sequence[SobolIndex | GroupIndex], labels: Sequence[str]) -> None:
    rows = np.arange(len(shown))
    whisker = {"ecolor": INK, "elinewidth": 0.9, "capsize": 1.8}
    for kind, offset, colour in (("total", -BAR / 2, LIVING), ("first", BAR / 2, EXTRA)):
        values = [getattr(index, kind) for index in shown]
        axes.barh(
            rows + offset,
            values,
            height=BAR,
            color=colour,
            xerr=[getattr(index, f"{kind}_ci") for index in shown],
            error_kw=whisker,
            label="total" if kind == "total" else "first order",
        )
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.set_xlabel("Sobol index: share of the variance")
    axes.axvline(0, color=PALE, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.01)


def _marked(index: SobolIndex) -> str:
    return f"{short_name(index.name)}  {'●' if index.selected else '○'}"


def _bars_story(study: Sensitivity, ranked: list[SobolIndex]) -> str:
    strongest = ", ".join(f"{index.name} {index.total:.2f}" for index in ranked[:5])
    chosen = [index.name for index in ranked if index.selected]
    groups = ", ".join(f"{group.name} {group.total:.2f}" for group in study.groups)
    return (
        f"From {study.samples:,} base samples. Strongest totals: {strongest}. "
        f"Selected for calibration: {', '.join(chosen) if chosen else 'none'}."
        f"{f' Totals of groups: {groups}.' if groups else ''}"
    )


def chord_plot(results: RunResults) -> Drawing | LeftOut:
    """Figure 6: which inputs act together: second-order indices as ribbons in a circle."""
    title = "What acts together: second-order effects"
    study = results.manifest.sensitivity
    if study is None or not study.indices:
        return LeftOut("chord", title, NO_STUDY)
    pairs = significant(study.pairs)
    if not pairs:
        return LeftOut("chord", title, _nothing_together(study))
    figure = new_figure(5.2)
    circle, list_of_pairs = figure.subplots(1, 2, width_ratios=[1.55, 1])
    kinds = _kinds(study, results)
    names = _names(study, pairs)
    ordered = [_stronger_kind_first(pair, kinds) for pair in pairs]
    draw_chords(circle, names, ordered, {name: kinds[name] for name in names})
    _draw_pairs(list_of_pairs, ordered[:MOST_PAIRS], kinds)
    _explain_kinds(circle)
    legend_on_top(figure, circle)
    tested = _tested(study)
    caption = (
        "Inputs stand on a circle, and a ribbon is as wide as the second-order index (no unit) of "
        "the pair that it joins, the strongest with their 95 % intervals on the right; "
        f"{tested - len(pairs)} of {tested} pairs are ignored, since they "
        "cannot be told from noise."
    )
    return Drawing("chord", title, caption, _chord_story(pairs), figure)


def _draw_pairs(axes: Axes, pairs: list[PairIndex], kinds: dict[str, str]) -> None:
    rows = np.arange(len(pairs))
    axes.set_title("The strongest pairs")
    for row, pair in zip(rows, pairs, strict=True):
        colour = kinds[pair.first]
        axes.barh(row, pair.index, height=0.3, color=colour, alpha=0.75)
        axes.errorbar(pair.index, row, xerr=pair.ci, color=INK, linewidth=0.9, capsize=1.8)
        axes.text(
            0,
            row - 0.27,
            f"{short_name(pair.first)} × {short_name(pair.second)}",
            fontsize=8,
            va="bottom",
        )
    axes.set_ylim(MOST_PAIRS - 0.4, -0.9)
    axes.set_xlim(left=0)
    axes.set_xlabel("second-order Sobol index")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)


def _nothing_together(study: Sensitivity) -> str:
    if not _tested(study):
        return "The sensitivity study computed no second-order indices."
    return (
        f"None of the {_tested(study)} second-order effects can be told from zero at 95 %: "
        "the inputs act each for itself."
    )


def _tested(study: Sensitivity) -> int:
    """Older studies carry the pairs alone."""
    return max(study.pairs_tested, len(study.pairs))


def _names(study: Sensitivity, pairs: list[PairIndex]) -> list[str]:
    """All inputs while they fit round the circle, else those that have a ribbon."""
    paired = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
    listed = [index.name for index in study.indices]
    kept = listed if len(listed) <= MOST_BARS else [name for name in listed if name in paired]
    return list(dict.fromkeys([*kept, *paired]))


def _kinds(study: Sensitivity, results: RunResults) -> dict[str, str]:
    """A colour for each input: selected parameter, feature, or another candidate."""
    paired = (name for pair in study.pairs for name in (pair.first, pair.second))
    colours = dict.fromkeys(paired, PALE) | {index.name: PALE for index in study.indices}
    colours |= {name: EXTRA for name in results.manifest.feature_names if name in colours}
    return colours | {index.name: LIVING for index in study.indices if index.selected}


def _stronger_kind_first(pair: PairIndex, kinds: dict[str, str]) -> PairIndex:
    rank = [LIVING, EXTRA, PALE]
    if rank.index(kinds[pair.second]) < rank.index(kinds[pair.first]):
        return PairIndex(pair.second, pair.first, pair.index, pair.ci)
    return pair


def _explain_kinds(axes: Axes) -> None:
    for label, colour in (
        ("selected parameter", LIVING),
        ("feature", EXTRA),
        ("other candidate", PALE),
    ):
        axes.plot([], [], "s", color=colour, label=label)


def _chord_story(pairs: list[PairIndex]) -> str:
    told = ", ".join(f"{p.first} with {p.second} {p.index:.3f}" for p in pairs[:6])
    return f"{len(pairs)} pairs have an effect together. The strongest: {told}."
