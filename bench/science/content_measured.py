"""The report's sections on time and on measured data. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bench.science.cells_section import SHIPPED, TUNED
from bench.science.content_base import Row, Section, Table, method_rows, number
from bench.science.results import Results
from bench.science.spread import Spread


def timing(results: Results) -> Section:
    """How long a recalibration takes."""
    figures = results.figures
    names = [n.split("/")[1] for n in figures if n.startswith("timing/") and n.endswith("/ms")]
    rows = [
        (
            name,
            number(figures.get(f"timing/{name}/ms"), 3),
            number(figures.get(f"timing/{name}/per_s"), 0),
        )
        for name in names
    ]
    text = (
        "One thread, the same .tflite behind all, in turns in one run, the median; the published "
        "settings take "
        f"{number(figures.get('timing/published_over_ours'), 0)} times as long as ours in batches "
        "of 256."
    )
    headings = ("recalibration of a vehicle", "ms", "a second and core")
    return Section("Time of a recalibration", text, [Table(headings, rows)], ("timing",))


def cells(results: Results) -> Section:
    """The measured cells, new to dead."""
    figures = results.figures
    rows = [(name, error, updates) for name, error, updates, _ in method_rows(figures, "cells")]
    more: list[Row] = [
        ("health, mean error (points)", number(figures.get("cells/health/mean_points"), 2)),
        ("health, p95 (points)", number(figures.get("cells/health/p95_points"), 2)),
        ("capacity inside the 95 % band (%)", _percent(figures, "cells/health/inside_95")),
        ("voltage inside the 95 % band (%)", _percent(figures, "cells/voltage/inside_95")),
        (
            "80 % cycle predicted at half that age, error (%)",
            number(figures.get("cells/forecast/half_life/error_percent"), 1),
        ),
        (
            "the same inside the 95 % band (% of cells)",
            _percent(figures, "cells/forecast/half_life/inside_95"),
        ),
    ]
    chosen = "; ".join(
        f"{cell.name}: {', '.join(f'{name} {label}' for name, label in cell.chosen.items())}"
        for cell in results.cells
    )
    text = (
        f"{len(results.cells)} CALCE cells, whole life, leaving one out: the model was trained on "
        "the first cycles of the other two, and whatever is tuned was tuned on them "
        f"({chosen}). “{SHIPPED}” has the priors of the demonstration, which were chosen on all "
        f"three; health and forecasts below are of “{TUNED}” (forecasts: with a rate)."
    )
    return Section(
        "Measured cells: calce_cs2",
        text,
        [Table(("method", "error (V)", "updates"), rows), Table(("", "measured"), more)],
        ("cells",),
    )


def _percent(figures: Mapping[str, Spread], name: str) -> str:
    return number(figures.get(name), 1, 100)


def car(results: Results) -> Section:
    """The measured car, through its winter."""
    figures = results.figures
    rows: list[Row] = [
        (
            "winter, frozen: as trained (mV a cell)",
            number(figures.get("car/frozen_mv_per_cell"), 1),
        ),
        (
            "winter, aligned, without updates (mV a cell)",
            number(figures.get("car/aligned_mv_per_cell"), 1),
        ),
        ("winter, living (mV a cell)", number(figures.get("car/living_mv_per_cell"), 1)),
        ("frozen over living", number(figures.get("car/times_lower"), 2)),
        ("updates of 1,000 trips", number(figures.get("car/updates_per_1000"), 0)),
    ]
    text = (
        "One BMW i3, trained on its first 10 summer trips, driven through the winter; "
        f"{len(results.plan.car_seeds)} networks."
    )
    return Section("A measured car: bmw_i3", text, [Table(("", "measured"), rows)])
