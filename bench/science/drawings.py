"""The figures of the report. Must never compute a figure of merit; they draw what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from bench.science.methods.catalogue import FLEET_PRIOR, FROZEN, OURS, PUBLISHED
from bench.science.results import Results
from demo.figure_error import draw_threshold
from demo.figure_style import (
    EXTRA,
    INK,
    LIVING,
    MUTED,
    PALE,
    UPDATE,
    Drawing,
    explain_below,
    legend_on_top,
    log_volts,
    new_figure,
)
from demo.figure_style import FROZEN as FROZEN_COLOUR

FloatArray = npt.NDArray[np.float64]

COLOURS: Mapping[str, str] = {
    FROZEN: FROZEN_COLOUR,
    PUBLISHED: UPDATE,
    OURS: LIVING,
    FLEET_PRIOR: EXTRA,
}
MARKERS = "osD^vP*Xh"


def drawings(results: Results) -> dict[str, Drawing]:
    """Every drawing by its key."""
    makers: tuple[Callable[[Results], Drawing], ...] = (
        _methods,
        _errors,
        _coverage,
        _health,
        _timing,
        _cells,
    )
    return {drawing.key: drawing for drawing in (make(results) for make in makers)}


def _methods(results: Results) -> Drawing:
    """Error against updates, one line a method through its thresholds."""
    figure = new_figure(5.2)
    axes = figure.subplots()
    thresholds = results.plan.thresholds_v
    prefix = f"fleet/{thresholds[0]:g} V/"
    ending = "/error_v"
    found = results.figures
    names = [n[len(prefix) : -len(ending)] for n in found if _fits(n, prefix, ending)]
    for marker, name in zip(MARKERS, names, strict=False):
        if name == FROZEN:
            continue
        paths = [f"fleet/{threshold_v:g} V/{name}" for threshold_v in thresholds]
        updates = [found[f"{path}/updates_per_1000"].mean for path in paths]
        errors = [found[f"{path}/error_v"].mean for path in paths]
        colour = COLOURS.get(name, MUTED)
        axes.plot(updates, errors, marker=marker, color=colour, linewidth=1.2, label=name)
    log_volts(axes)
    axes.set(xlabel="updates per 1,000 trips", ylabel="mean error, trips 11–100 (V)")
    axes.set_xlim(left=0)
    axes.legend(loc="best", ncols=2)
    caption = (
        "One line is one method through the thresholds "
        f"{', '.join(f'{v:g}' for v in thresholds)} V: lower and further left is better."
    )
    story = f"Error against updates of {len(names)} methods; the table above holds every number."
    return Drawing("methods", "Error and updates of every method", caption, story, figure)


def _fits(name: str, prefix: str, ending: str) -> bool:
    return name.startswith(prefix) and name.endswith(ending)


def _errors(results: Results) -> Drawing:
    """The mean error over the trips of a life."""
    figure = new_figure(4.3)
    axes = figure.subplots()
    for key in results.seeds[0].curves:
        if not key.startswith("error_v/"):
            continue
        name = key.removeprefix("error_v/")
        if name in COLOURS:
            _curve(axes, results, key, COLOURS[name], name)
        else:
            mean = np.mean(_stack(results, key), axis=0)
            axes.plot(np.arange(len(mean)) + 1, mean, color=PALE, linewidth=0.9)
    draw_threshold(axes, 0.05)
    log_volts(axes)
    axes.set(xlabel="trip of the vehicle", ylabel="mean absolute error (V)")
    legend_on_top(figure, axes)
    caption = (
        "Mean over vehicles and seeds at threshold 0.05 V, shaded from the lowest to the highest "
        "seed; the other peers are pale."
    )
    return Drawing("errors", "Error over the life of a battery", caption, caption, figure)


def _stack(results: Results, key: str) -> FloatArray:
    return np.array([seed.curves[key] for seed in results.seeds], dtype=np.float64)


def _curve(axes: Axes, results: Results, key: str, colour: str, label: str) -> None:
    table = _stack(results, key)
    trips = np.arange(table.shape[1]) + 1
    axes.fill_between(trips, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.2, lw=0)
    axes.plot(trips, table.mean(axis=0), color=colour, linewidth=1.6, label=label)


def _coverage(results: Results) -> Drawing:
    figure = new_figure(3.6)
    axes = figure.subplots()
    _curve(axes, results, "inside_95", LIVING, "as measured")
    _curve(axes, results, "true_inside_95", EXTRA, "without noise")
    axes.axhline(0.95, color=INK, linewidth=1.0, dashes=(4, 3), label="claimed")
    axes.set(xlabel="trip of the vehicle", ylabel="samples inside the 95 % band")
    axes.set_ylim(top=1.02)
    legend_on_top(figure, axes)
    caption = "Share of each trip's samples inside the band that was predicted before the trip."
    return Drawing("coverage", "Coverage of the 95 % voltage band", caption, caption, figure)


def _health(results: Results) -> Drawing:
    figure = new_figure(4.6)
    upper, lower = figure.subplots(2, sharex=True)
    _curve(upper, results, "health_points", LIVING, "state of health")
    _curve(lower, results, "range_percent", EXTRA, "range")
    upper.set_ylabel("health error (points)")
    lower.set(xlabel="trip of the vehicle", ylabel="range error (%)")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
    caption = "Mean absolute error against the simulator's truth, shaded over the seeds."
    return Drawing("health", "Health and range over a life", caption, caption, figure)


def _timing(results: Results) -> Drawing:
    figure = new_figure(3.6)
    axes = figure.subplots()
    names = [n for n in results.figures if n.startswith("timing/") and n.endswith("/ms")]
    values = [results.figures[name].mean for name in names]
    labels = [name.split("/")[1] for name in names]
    colours = [LIVING if "batch" in label else UPDATE for label in labels]
    axes.barh(labels[::-1], values[::-1], color=colours[::-1], alpha=0.85)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a recalibration")
    axes.grid(visible=False, axis="y")
    caption = "Median of one thread, in turns in one run, logarithmic."
    return Drawing("timing", "Time of a recalibration", caption, caption, figure)


def _cells(results: Results) -> Drawing:
    figure = new_figure(4.8)
    panels = figure.subplots(2, len(results.cells), sharex="col", squeeze=False)
    for column, cell in enumerate(results.cells):
        upper, lower = panels[0][column], panels[1][column]
        cycles = (np.arange(len(cell.curves["health"])) + 1) * results.plan.cycle_stride
        health, std = np.array(cell.curves["health"]), np.array(cell.curves["health_std"])
        upper.fill_between(
            cycles, health - 1.96 * std, health + 1.96 * std, color=LIVING, alpha=0.2, linewidth=0
        )
        upper.plot(cycles, health, color=LIVING, linewidth=1.2, label="predicted")
        capacity = cell.curves["capacity"]
        upper.plot(cycles, capacity, ".", color=INK, markersize=1.5, label="measured capacity")
        upper.set_title(cell.name)
        upper.set_ylim(0, 1.2)
        lower.plot(cycles, cell.curves["error_frozen_v"], color=FROZEN_COLOUR, lw=0.8, label=FROZEN)
        lower.plot(cycles, cell.curves["error_v"], color=LIVING, linewidth=0.8, label="living")
        log_volts(lower)
        lower.set_xlabel("cycle")
    panels[0][0].set_ylabel("relative to new")
    panels[1][0].set_ylabel("error (V)")
    panels[0][0].legend(loc="lower left")
    explain_below(panels[1][0])
    caption = "Above, predicted health with its 95 % band; below, the error of every cycle."
    return Drawing("cells", "Cells that nothing was learned from", caption, caption, figure)
