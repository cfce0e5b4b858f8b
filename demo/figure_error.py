"""Figures of the error: each trip, and the fleet's mean with its updates.

Must never compute an error; it draws what the run measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from demo.figure_data import (
    by_vehicle,
    error_tables,
    for_log_axis,
    late_means,
    thinned,
    update_table,
)
from demo.figure_style import (
    FROZEN,
    INK,
    LIVING,
    PAPER,
    UPDATE,
    Drawing,
    LeftOut,
    legend_on_top,
    log_volts,
    new_figure,
    thousands,
)
from demo.results import FloatArray, RunResults, TripRow

MOST_DOTS = 4000
MANY_DOTS = 600
SMALL_DOT, LARGE_DOT = 1.9, 3.6
MOST_BINS = 25
NO_TRIPS = "No trip was recorded with an error in this run, so there is none to draw."


def error_per_trip(results: RunResults) -> Drawing | LeftOut:
    """Figure 1: each trip's error, frozen against living, updates as red dots, on a log axis."""
    title = "Error of each trip: frozen model against living twin"
    if not any_error(results.trips):
        return LeftOut("error", title, NO_TRIPS)
    figure = new_figure(4.3)
    axes = figure.subplots()
    shown, all_vehicles = draw_errors(axes, results)
    legend_on_top(figure, axes)
    part = "" if shown == all_vehicles else f" (drawn for {shown} of {all_vehicles} vehicles)"
    caption = (
        "One dot is one trip of one vehicle, on a logarithmic axis: the model that nobody updates "
        "drifts away as the battery ages, while the living twin is called back by an update "
        f"(red) whenever a trip exceeds the threshold{part}."
    )
    return Drawing("error", title, caption, _error_story(results), figure)


def any_error(trips: Sequence[TripRow]) -> bool:
    """Whether there is anything to draw."""
    return any(math.isfinite(row.error_v) and math.isfinite(row.error_frozen_v) for row in trips)


def draw_errors(axes: Axes, results: RunResults) -> tuple[int, int]:
    """Fill one panel with the errors; returns the numbers of vehicles (drawn, in all)."""
    fleet = by_vehicle(results.trips)
    names = list(fleet)[thinned(len(results.trips), MOST_DOTS)]
    rows = [row for name in names for row in fleet[name]]
    frozen, living = map(for_log_axis, error_tables(rows))
    updated = update_table(rows) == 1
    size = SMALL_DOT if len(rows) > MANY_DOTS else LARGE_DOT
    if len(fleet) == 1:
        _trace(axes, frozen, FROZEN)
        _trace(axes, living, LIVING)
    _dots(axes, frozen, FROZEN, "frozen model", size)
    _dots(axes, np.where(updated, np.nan, living), LIVING, "living twin", size)
    _dots(
        axes,
        np.where(updated, living, np.nan),
        UPDATE,
        "update triggered",
        1.2 + 1.25 * size,
        ring=True,
    )
    draw_threshold(axes, results.manifest.error_threshold_v)
    log_volts(axes)
    thousands(axes)
    axes.set(xlabel="trip of the vehicle", ylabel="mean absolute error (V)")
    axes.set_xlim(0, frozen.shape[1] + 1)
    return len(names), len(fleet)


def _trace(axes: Axes, table: FloatArray, colour: str) -> None:
    """A faint line through the trips of a single vehicle; of many it would be a tangle."""
    axes.plot(np.arange(table.shape[1]) + 1, table[0], color=colour, linewidth=0.8, alpha=0.45)


def _dots(
    axes: Axes, table: FloatArray, colour: str, label: str, size: float, *, ring: bool = False
) -> None:
    vehicles, trips = np.nonzero(np.isfinite(table))
    axes.plot(
        trips + 1,
        table[vehicles, trips],
        "o",
        color=colour,
        markersize=size,
        markeredgecolor=PAPER if ring else "none",
        markeredgewidth=0.35 if ring else 0.0,
        alpha=None if ring else 0.65,
        label=label,
    )


def _error_story(results: RunResults) -> str:
    frozen, living = late_means(results.trips)
    updates = sum(row.updated for row in results.trips)
    return (
        f"{len(results.trips):,} trips of {len(by_vehicle(results.trips))} vehicles. Over the last "
        f"fifth of the trips the frozen model is wrong by {frozen:.3g} V on average, the living "
        f"twin by {living:.3g} V; the threshold is {results.manifest.error_threshold_v:g} V and "
        f"{updates:,} trips brought an update."
    )


def fleet_view(results: RunResults) -> Drawing | LeftOut:
    """Figure 2: the fleet's mean error, and how often it needs an update, over the trip number."""
    title = "The fleet: mean error, and updates per 1,000 trips"
    if not any_error(results.trips):
        return LeftOut("fleet", title, NO_TRIPS)
    figure = new_figure(4.9)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[1.5, 1])
    _means(upper, results)
    rate = _rates(lower, results.trips)
    legend_on_top(figure, upper)
    caption = (
        "Above, the mean error of all vehicles at the same trip of their life in volts, with the "
        "range that holds the middle 80 % of them; below, how many of 1,000 trips brought an "
        "update at that age."
    )
    return Drawing("fleet", title, caption, f"{_error_story(results)} {_rate_story(rate)}", figure)


def _means(axes: Axes, results: RunResults) -> None:
    frozen, living = error_tables(results.trips)
    for table, colour, label in (
        (frozen, FROZEN, "frozen model"),
        (living, LIVING, "living twin"),
    ):
        driven = np.isfinite(table).any(axis=0)
        trip = np.flatnonzero(driven) + 1
        low, high = np.nanpercentile(table[:, driven], [10, 90], axis=0)
        axes.fill_between(trip, low, high, color=colour, alpha=0.22, linewidth=0)
        mean = np.nanmean(table[:, driven], axis=0)
        axes.plot(trip, mean, color=colour, linewidth=1.8, label=label)
    draw_threshold(axes, results.manifest.error_threshold_v)
    axes.set_ylabel("mean error (V)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, frozen.shape[1] + 1)


def draw_threshold(axes: Axes, threshold_v: float) -> None:
    """A dashed line where a trip becomes a breach."""
    label = f"threshold {threshold_v:g} V"
    axes.axhline(threshold_v, color=INK, linewidth=1.0, dashes=(4, 3), label=label)


def _rates(axes: Axes, trips: Sequence[TripRow]) -> float:
    """Bars of updates per 1,000 trips; returns the rate of the whole run."""
    table = update_table(trips)
    width = max(1, -(-table.shape[1] // MOST_BINS))
    edges = np.arange(0, table.shape[1], width)
    updates = np.add.reduceat(np.nansum(table, axis=0), edges)
    driven = np.add.reduceat(np.isfinite(table).sum(axis=0), edges)
    rate = 1000.0 * float(updates.sum() / driven.sum())
    heights = 1000 * updates / np.maximum(driven, 1)
    axes.bar(edges + width / 2 + 0.5, heights, width=0.82 * width, color=UPDATE, alpha=0.85)
    axes.axhline(rate, color=INK, linewidth=1.0, dashes=(1, 2))
    axes.set_title(f"{rate:,.0f} over the whole run (dotted)", fontweight="normal", loc="right")
    axes.set(xlabel="trip of the vehicle", ylabel="updates per 1,000 trips")
    axes.grid(visible=False, axis="x")
    thousands(axes)
    return rate


def _rate_story(rate: float) -> str:
    return f"In the whole run {rate:,.0f} of 1,000 trips brought an update."
