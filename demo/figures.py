"""The figures of a report in their order, and the picture of the README.

Must never hold data of its own: everything comes from the run's results.
"""

from __future__ import annotations

from matplotlib.axes import Axes

from demo.figure_error import any_error, draw_errors, error_per_trip, fleet_view
from demo.figure_identifiability import identifiability
from demo.figure_parameters import (
    draw_health,
    draw_parameter,
    fleet_health,
    parameters_over_odometer,
    state_of_health,
)
from demo.figure_sensitivity import chord_plot, sobol_bars
from demo.figure_style import (
    Drawing,
    LeftOut,
    drawing_style,
    explain_below,
    new_figure,
    picture_png,
)
from demo.figure_voltage import trip_before_and_after, whole_history
from demo.results import RunResults

FIGURES = (
    error_per_trip,
    fleet_view,
    trip_before_and_after,
    whole_history,
    sobol_bars,
    chord_plot,
    identifiability,
    parameters_over_odometer,
    state_of_health,
)


def report_figures(results: RunResults) -> list[Drawing | LeftOut]:
    """Every figure of the report, drawn or left out with its reason."""
    with drawing_style():
        return [draw(results) for draw in FIGURES]


def picture(results: RunResults) -> bytes:
    """The README's picture as PNG: errors on the left, what the twin learnt on the right."""
    with drawing_style():
        figure = new_figure(4.1, 11.0)
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        if any_error(results.trips):
            draw_errors(left, results)
            explain_below(left)
        left.set_title("Error of each trip")
        _what_was_learnt(right, results)
        return picture_png(figure)


def _what_was_learnt(axes: Axes, results: RunResults) -> None:
    health = fleet_health(results)
    if health:
        name, rows = next(iter(health.items()))
        draw_health(axes, rows, name, results.manifest.odometer_unit)
        axes.set_title(f"State of health of vehicle {name}")
    elif results.revisions:
        draw_parameter(axes, results, 0)
    else:
        axes.set_title("No revision was made")
        return
    explain_below(axes)
