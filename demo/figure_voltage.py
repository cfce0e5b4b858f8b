"""Figures of the voltage: one trip before and after its update, and one vehicle's whole life.

Must never predict; it draws what the run has predicted.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from demo.figure_data import by_vehicle, envelope, thinned, trip_starts, window
from demo.figure_style import (
    FROZEN,
    INK,
    LIVING,
    MUTED,
    SIGMAS_95,
    Drawing,
    LeftOut,
    legend_on_top,
    new_figure,
    thousands,
)
from demo.results import ExampleTrip, FloatArray, RunResults, VoltageHistory

FEWEST_SAMPLES = 2
MOST_POINTS = 700
MOST_STEPS = 400
MOST_WINDOW_SAMPLES = 1200
MILLIVOLTS = 1000.0


def trip_before_and_after(results: RunResults) -> Drawing | LeftOut:
    """Figure 3: voltage along one breach trip, before and after the update, with 95 % bands."""
    title = "One trip, before and after its update"
    example = results.example
    if example is None or example.axis.size == 0:
        reason = "No trip of this run brought an update, so there is no before and after."
        return LeftOut("trip", title, reason)
    figure = new_figure(4.7)
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1.6, 1])
    before = example.before_v, example.before_std_v
    after = example.after_v, example.after_std_v
    for column, (name, estimate) in enumerate((("Before", before), ("After", after))):
        _draw_trip(panels[0, column], example, *estimate)
        _draw_residual(panels[1, column], example, *estimate)
        error = MILLIVOLTS * np.nanmean(np.abs(example.measured_v - estimate[0]))
        panels[0, column].set_title(f"{name} the update: mean error {error:,.0f} mV")
        panels[1, column].set_xlabel(example.axis_label)
    panels[0, 0].set_ylabel("voltage (V)")
    panels[1, 0].set_ylabel("measured − living (mV)")
    legend_on_top(figure, panels[0, 0])
    caption = (
        f"Trip {example.trip_id} of vehicle {example.vehicle_id}: above the voltage in volts, "
        "below what was measured less what the twin said, with its 95 % band, before and after "
        "the revision that this trip brought."
    )
    return Drawing("trip", title, caption, _trip_story(example), figure)


def _draw_trip(axes: Axes, example: ExampleTrip, voltage: FloatArray, std: FloatArray) -> None:
    few = thinned(example.axis.size, MOST_POINTS)
    x, centre, half = example.axis[few], voltage[few], SIGMAS_95 * std[few]
    axes.plot(x, example.measured_v[few], "o", color=INK, markersize=1.8, label="measured")
    axes.plot(x, example.frozen_v[few], color=FROZEN, linewidth=1.6, label="frozen model")
    axes.fill_between(x, centre - half, centre + half, color=LIVING, alpha=0.3, linewidth=0)
    axes.plot(x, centre, color=LIVING, linewidth=1.6, label="living twin, 95 % band")


def _draw_residual(axes: Axes, example: ExampleTrip, voltage: FloatArray, std: FloatArray) -> None:
    few = thinned(example.axis.size, MOST_POINTS)
    x, half = example.axis[few], MILLIVOLTS * SIGMAS_95 * std[few]
    residual = MILLIVOLTS * (example.measured_v - voltage)[few]
    axes.fill_between(x, -half, half, color=LIVING, alpha=0.3, linewidth=0)
    axes.axhline(0, color=LIVING, linewidth=1.2)
    axes.plot(x, residual, "o", color=INK, markersize=1.8)


def _trip_story(example: ExampleTrip) -> str:
    frozen, before, after = (
        MILLIVOLTS * float(np.nanmean(np.abs(example.measured_v - predicted)))
        for predicted in (example.frozen_v, example.before_v, example.after_v)
    )
    return (
        f"Voltage along trip {example.trip_id} of vehicle {example.vehicle_id}. Mean error of the "
        f"frozen model {frozen:.0f} mV, of the living twin {before:.0f} mV before the update and "
        f"{after:.0f} mV after it."
    )


def whole_history(results: RunResults) -> Drawing | LeftOut:
    """Figure 4: all of one vehicle's voltage: range of each trip, a closer look at three ages."""
    history = results.history
    if history.odometer.size < FEWEST_SAMPLES:
        reason = "This run kept no sample-by-sample history, so no life can be drawn."
        return LeftOut("history", "The whole voltage history of one vehicle", reason)
    title = f"The whole voltage history of vehicle {history.vehicle_id}"
    starts = trip_starts(history, by_vehicle(results.trips).get(history.vehicle_id, []))
    figure = new_figure(5.4)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.15, 1])
    life = figure.add_subplot(grid[0, :])
    _draw_life(life, history, starts)
    life.set_xlabel(f"odometer ({results.manifest.odometer_unit})")
    _draw_windows([figure.add_subplot(grid[1, i]) for i in range(3)], history, starts, life)
    legend_on_top(figure, life)
    caption = (
        "Above, the highest and the lowest voltage of the trips in volts over the odometer; below, "
        "whole trips sample by sample at the start, in the middle and at the end of that life."
    )
    return Drawing("history", title, caption, _life_story(results, history), figure)


def _draw_life(axes: Axes, history: VoltageHistory, starts: FloatArray) -> None:
    together = thinned(starts.size, MOST_STEPS)
    starts = starts[together]
    measured = envelope(history.odometer, history.measured_v, starts)
    x = measured.odometer
    axes.fill_between(x, measured.low_v, measured.high_v, color=INK, alpha=0.1, linewidth=0)
    frozen = envelope(history.odometer, history.frozen_v, starts)
    living = envelope(history.odometer, history.living_v, starts)
    axes.plot(x, frozen.high_v, color=FROZEN, linewidth=1.6)
    axes.plot(x, frozen.low_v, color=FROZEN, linewidth=1.6)
    axes.plot(x, measured.high_v, color=INK, linewidth=2.6, label="measured", alpha=0.6)
    axes.plot(x, measured.low_v, color=INK, linewidth=2.6, alpha=0.6)
    axes.plot([], [], color=FROZEN, linewidth=1.6, label="frozen model")
    axes.plot(x, living.high_v, color=LIVING, linewidth=1.3, label="living twin")
    axes.plot(x, living.low_v, color=LIVING, linewidth=1.3)
    each = "each trip" if together.step == 1 else f"every {together.step} trips"
    axes.set(ylabel="voltage (V)", title=f"Highest and lowest voltage of {each}")
    axes.margins(x=0.015)
    thousands(axes)


def _draw_windows(
    panels: list[Axes], history: VoltageHistory, starts: FloatArray, life: Axes
) -> None:
    for axes, share, name in zip(panels, (0.0, 0.5, 1.0), ("Start", "Middle", "End"), strict=True):
        part = window(history.odometer, starts, share, MOST_WINDOW_SAMPLES)
        _draw_samples(axes, history, part)
        axes.set_title(f"{name} of life")
        axes.sharey(panels[0])
        life.axvspan(*axes.get_xlim(), color=MUTED, alpha=0.18, linewidth=0)
    panels[0].set_ylabel("voltage (V)")
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)


def _draw_samples(axes: Axes, history: VoltageHistory, part: slice) -> None:
    x = history.odometer[part]
    few = thinned(x.size, MOST_POINTS)
    axes.plot(x[few], history.frozen_v[part][few], color=FROZEN, linewidth=1.2)
    axes.plot(x[few], history.measured_v[part][few], color=INK, linewidth=2.2, alpha=0.6)
    axes.plot(x[few], history.living_v[part][few], color=LIVING, linewidth=1.2)
    axes.margins(x=0)
    thousands(axes)
    axes.locator_params(axis="x", nbins=4)


def _life_story(results: RunResults, history: VoltageHistory) -> str:
    frozen = float(np.nanmean(np.abs(history.measured_v - history.frozen_v)))
    living = float(np.nanmean(np.abs(history.measured_v - history.living_v)))
    return (
        f"{history.odometer.size:,} samples of vehicle {history.vehicle_id} over "
        f"{history.odometer[-1] - history.odometer[0]:,.0f} {results.manifest.odometer_unit}. Over "
        f"all samples the frozen model is wrong by {frozen:.3g} V on average, the living twin by "
        f"{living:.3g} V."
    )
