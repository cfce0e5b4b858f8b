"""Figures of what the twin has learnt: parameters and state of health over the odometer.

Must never estimate; it draws revisions and health as the run reports them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common.manifest import Parameter
from demo.figure_data import by_vehicle, first_vehicle
from demo.figure_style import (
    INK,
    LIVING,
    MUTED,
    PALE,
    SIGMAS_95,
    Drawing,
    LeftOut,
    legend_on_top,
    new_figure,
    short_name,
    thousands,
)
from demo.results import FloatArray, RevisionRow, RunResults, TripRow

MOST_PANELS = 8
MOST_FAINT = 40
PERCENT = 100.0


def parameters_over_odometer(results: RunResults) -> Drawing | LeftOut:
    """Figure 8: each parameter with its 95 % band; one vehicle strong, the others faint."""
    title = "Parameters θ over the odometer"
    kept = _in_force(results)
    if not kept:
        reason = "No revision was made in this run: the nominal parameters held throughout."
        return LeftOut("parameters", title, reason)
    shown = results.manifest.parameters[:MOST_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(0.7 + 2.5 * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for number, axes in enumerate(panels):
        axes.set_visible(number < len(shown))
        if number < len(shown):
            draw_parameter(axes, results, number)
    legend_on_top(figure, panels[0])
    rest, refused = (
        len(results.manifest.parameters) - len(shown),
        len(results.revisions) - len(kept),
    )
    omitted = f"; {rest} more parameters are in report.json" if rest else ""
    omitted += f"; {refused} revisions that a vehicle refused are left out" if refused else ""
    caption = (
        f"One point is one revision of vehicle {first_vehicle(results)} with its 95 % band, the "
        "other vehicles are faint and the value that the model was trained with is dashed"
        f"{omitted}."
    )
    return Drawing("parameters", title, caption, _parameters_story(results), figure)


def _in_force(results: RunResults) -> list[RevisionRow]:
    """Revisions in the order of their numbers, without those that a vehicle refused."""
    kept = (row for row in results.revisions if not row.verdict.startswith("refused"))
    return sorted(kept, key=lambda row: row.number)


def draw_parameter(axes: Axes, results: RunResults, number: int) -> None:
    """One panel: one parameter of all vehicles over the odometer."""
    name = first_vehicle(results)
    parameter = results.manifest.parameters[number]
    others = _revisions_by_vehicle(results, except_for=name)[:MOST_FAINT]
    for position, rows in enumerate(others):
        label = "other vehicles" if position == 0 else None
        x, theta = _odometer(rows), _theta(rows)[:, number]
        axes.plot(x, theta, color=PALE, linewidth=0.8, alpha=0.7, label=label)
    own = [row for row in _in_force(results) if row.vehicle_id == name]
    if own:
        _draw_strong(axes, own, number, f"vehicle {name}, 95 % band")
    dashed = (4, 3)
    axes.axhline(parameter.nominal, color=INK, linewidth=1.0, dashes=dashed, label="nominal")
    axes.set_title(_heading(parameter))
    axes.set_xlabel(f"odometer ({results.manifest.odometer_unit})")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelbottom=True)
    axes.margins(x=0.015)
    thousands(axes)


def _heading(parameter: Parameter) -> str:
    unit = parameter.unit if parameter.unit not in {"", "1", "-"} else "no unit"
    return f"{short_name(parameter.name)} ({unit})"


def _draw_strong(axes: Axes, rows: Sequence[RevisionRow], number: int, label: str) -> None:
    x, theta = _odometer(rows), _theta(rows)[:, number]
    half = SIGMAS_95 * np.array([row.theta_std[number] for row in rows])
    axes.fill_between(x, theta - half, theta + half, color=LIVING, alpha=0.25, linewidth=0)
    size = 2.4 if len(rows) <= MOST_FAINT else 0.0
    axes.plot(x, theta, "o-", color=LIVING, linewidth=1.6, markersize=size, label=label)


def _revisions_by_vehicle(results: RunResults, *, except_for: str) -> list[list[RevisionRow]]:
    found: dict[str, list[RevisionRow]] = {}
    for row in _in_force(results):
        if row.vehicle_id != except_for:
            found.setdefault(row.vehicle_id, []).append(row)
    return list(found.values())


def _odometer(rows: Sequence[RevisionRow]) -> FloatArray:
    return np.array([row.odometer for row in rows])


def _theta(rows: Sequence[RevisionRow]) -> FloatArray:
    return np.array([row.theta for row in rows])


def _parameters_story(results: RunResults) -> str:
    name = first_vehicle(results)
    own = [row for row in _in_force(results) if row.vehicle_id == name]
    if not own:
        return f"{len(results.revisions):,} revisions of other vehicles than {name}."
    last = own[-1]
    values = zip(results.manifest.parameters, last.theta, last.theta_std, strict=True)
    told = (
        f"{parameter.name} {value:.4g} ± {SIGMAS_95 * std:.2g} (nominal {parameter.nominal:g})"
        for parameter, value, std in values
    )
    return f"Vehicle {name} after revision {last.number}: {', '.join(told)}."


def state_of_health(results: RunResults) -> Drawing | LeftOut:
    """Figure 9: state of health of one vehicle with its band, and each vehicle's distance to truth.

    The second panel is drawn only when the run knows the truth.
    """
    title = "State of health over the odometer"
    fleet = fleet_health(results)
    if not fleet:
        reason = "The trips of this run carry no state of health."
        return LeftOut("health", title, reason)
    name = next(iter(fleet))
    known = any(row.health_truth is not None for rows in fleet.values() for row in rows)
    figure = new_figure(3.7)
    panels = figure.subplots(1, 2 if known else 1, squeeze=False).ravel()
    draw_health(panels[0], fleet[name], name, results.manifest.odometer_unit)
    if known:
        _draw_health_errors(panels[1], fleet, name, results.manifest.odometer_unit)
    legend_on_top(figure, panels[0])
    against = "; on the right, estimate less truth in percentage points, all vehicles"
    caption = (
        f"State of health of vehicle {name} in percent of new as the twin reads it off its model, "
        f"with its 95 % band{against if known else ''}."
    )
    return Drawing("health", title, caption, _health_story(fleet), figure)


def _with_health(rows: Sequence[TripRow]) -> list[TripRow]:
    return [row for row in rows if row.health is not None]


def fleet_health(results: RunResults) -> dict[str, list[TripRow]]:
    """The trips that carry a state of health; the vehicle that is drawn strong comes first."""
    strong = first_vehicle(results)
    fleet = {name: _with_health(rows) for name, rows in by_vehicle(results.trips).items()}
    known = {name: rows for name, rows in fleet.items() if rows}
    return {name: known[name] for name in sorted(known, key=lambda name: name != strong)}


def draw_health(axes: Axes, rows: Sequence[TripRow], name: str, unit: str) -> None:
    """One panel: estimate with band, and truth where it is known."""
    x = np.array([row.odometer for row in rows])
    health = PERCENT * _numbers([row.health for row in rows])
    low = PERCENT * _numbers([row.health_low for row in rows])
    high = PERCENT * _numbers([row.health_high for row in rows])
    truth = PERCENT * _numbers([row.health_truth for row in rows])
    if np.isfinite(truth).any():
        axes.plot(x, truth, color=INK, linewidth=3.2, alpha=0.45, label="truth")
    label = "living twin, 95 % band"
    axes.fill_between(x, low, high, color=LIVING, alpha=0.25, linewidth=0)
    axes.plot(x, health, color=LIVING, linewidth=1.5, label=label)
    axes.set(xlabel=f"odometer ({unit})", ylabel="state of health (%)")
    axes.set_title(f"Vehicle {name}")
    axes.margins(x=0.015)
    thousands(axes)


def _draw_health_errors(
    axes: Axes, fleet: dict[str, list[TripRow]], strong: str, unit: str
) -> None:
    others = [name for name in fleet if name != strong][:MOST_FAINT]
    for name in (*others, strong):
        x = np.array([row.odometer for row in fleet[name]])
        colour, width = (LIVING, 1.4) if name == strong else (PALE, 0.8)
        axes.plot(x, _points_off(fleet[name]), color=colour, linewidth=width)
    axes.axhline(0, color=INK, linewidth=1.0)
    for guide in (-2, 2):
        axes.axhline(guide, color=MUTED, linewidth=1.0, dashes=(1, 2))
    axes.set(xlabel=f"odometer ({unit})", ylabel="estimate − truth (points)")
    axes.set_title("All vehicles; dotted: ± 2 points")
    axes.margins(x=0.015)
    thousands(axes)


def _points_off(rows: Sequence[TripRow]) -> FloatArray:
    health = _numbers([row.health for row in rows])
    return PERCENT * (health - _numbers([row.health_truth for row in rows]))


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _health_story(fleet: dict[str, list[TripRow]]) -> str:
    ends = np.concatenate([_points_off(rows[-1:]) for rows in fleet.values()])
    last = [PERCENT * (rows[-1].health or 0.0) for rows in fleet.values()]
    told = f"At the end of the run {len(last)} vehicles stand between {min(last):.1f} and "
    told += f"{max(last):.1f} % of new"
    known = np.abs(ends[np.isfinite(ends)])
    if not known.size:
        return f"{told}. The truth is not known in this run."
    return (
        f"{told}, {known.mean():.2g} points off the truth on average and {known.max():.2g} at most."
    )
