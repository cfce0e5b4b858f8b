"""What the report says: sections of text and tables, the same for every form. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.science.content_base import Row, Section, Table, method_rows, number
from bench.science.content_measured import car, cells, timing
from bench.science.goals import interval_text, judged
from bench.science.merit import QUARTILES
from bench.science.methods.catalogue import FLEET_PRIOR, OURS
from bench.science.results import Results


def sections(results: Results) -> list[Section]:
    """The whole report in order."""
    return [
        _goals(results),
        _methods(results),
        _tuning(results),
        _consistency(results),
        _posterior(results),
        _health(results),
        timing(results),
        cells(results),
        car(results),
    ]


def _digits(unit: str) -> int:
    return {"V": 4, "σ": 3, "/s": 0, "per 1,000": 0}.get(unit, 2)


def _goals(results: Results) -> Section:
    rows = []
    for found in judged(results.figures):
        goal = found.goal
        measured = number(found.measured, _digits(goal.unit))
        verdict = "aim met" if found.met_aim else "met" if found.met_least else "not met"
        least, aim = interval_text(goal.least), interval_text(goal.aim)
        rows.append((f"{goal.name} ({goal.unit})", least, aim, measured, verdict))
    plan = results.plan
    text = (
        f"Simulated fleets of {plan.vehicles} vehicles × {plan.trips} trips for each of "
        f"{len(plan.reporting_seeds)} seeds ({_seeds(plan.reporting_seeds)}); every peer was tuned "
        f"on seeds {_seeds(plan.tuning_seeds)} and on nothing else. A number is the mean over "
        "seeds (cells, networks) ± their standard deviation."
    )
    return Section("Goals", text, [Table(("goal", "at least", "aim", "measured", ""), rows)])


def _seeds(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"


def _methods(results: Results) -> Section:
    tables = [
        Table(
            (f"threshold {threshold_v:g} V", "error (V)", "updates", "unseen"),
            list(method_rows(results.figures, f"fleet/{threshold_v:g} V")),
        )
        for threshold_v in results.plan.thresholds_v
    ]
    text = (
        "The same trips and the same thinned traces for all, and the same vehicle that refuses "
        "what does not lower the error on its own trace. Error: mean over trips 11–100. Updates: "
        "of 1,000 trips, all counted. Unseen: of 1,000 trips, those whose error against the "
        "voltage without noise exceeded the threshold while no update followed: noise hid the "
        "breach from the vehicle, or what the method proposed was refused."
    )
    return Section("Methods on the simulated fleet", text, tables, ("methods", "errors"))


def _tuning(results: Results) -> Section:
    rows = [
        (
            name,
            f"{label}{' (chosen)' if label == results.chosen[name] else ''}",
            f"{tried.error_v:.4f}",
            f"{tried.updates_per_1000:.0f}",
        )
        for name, labels in results.trials.items()
        for label, tried in labels.items()
    ]
    text = (
        "Every value that was tried for each peer, on the tuning vehicles at 0.05 V; the lowest "
        "error was chosen. Frozen, the published settings and our own calibration were not tuned "
        "here: they run as they ship."
    )
    return Section(
        "Tuning of the peers", text, [Table(("peer", "value", "error (V)", "updates"), rows)]
    )


def _consistency(results: Results) -> Section:
    figures = results.figures
    rows: list[Row] = []
    for label, path in (
        ("voltage as measured", "voltage"),
        ("voltage without noise", "voltage_true"),
        ("state of health", "health"),
        ("range", "range"),
    ):
        for level in (50, 90, 95):
            base = f"claims/{OURS}/{path}/inside_{level}"
            quarters = [f"{base}_quarter_{q + 1}" for q in range(QUARTILES)]
            cells = [number(figures.get(name), 1, 100) for name in (base, *quarters)]
            rows.append((f"{label}, {level} % band", *cells))
    ages = tuple(f"quarter {q + 1}" for q in range(QUARTILES))
    chi: list[Row] = []
    for name in (OURS, FLEET_PRIOR):
        for label, path in (
            ("NIS of updates", "nis_updates"),
            ("NIS of all trips", "nis_trips"),
            ("NEES of θ", "nees"),
        ):
            base = f"claims/{name}/{path}"
            share = number(figures.get(f"{base}/inside_95"), 1, 100)
            mean = number(figures.get(f"{base}/per_degree"), 2)
            chi.append((f"{label}, {name}", share, mean))
    text = (
        "Coverage in percent of what was claimed before each trip, by quarter of life: of all "
        "samples of the trip (against the voltage without noise, the band without the noise of the "
        "BMS), of true health and range. NIS and NEES: percent inside the central 95 % interval of "
        "chi-square, and the mean per degree of freedom (1 where consistent). An update is a "
        "surprise by selection, so the NIS of all trips stands beside. The true θ of a trip is "
        "defined as the least-squares fit of the model to the trip without noise."
    )
    return Section(
        "Do the uncertainties hold?",
        text,
        [
            Table(("coverage (%)", "all ages", *ages), rows),
            Table(("consistency", "inside 95 % (%)", "per degree"), chi),
        ],
        ("coverage",),
    )


def _posterior(results: Results) -> Section:
    figures = results.figures
    rows = [
        ("breaches compared", number(figures.get("posterior/cases"), 0)),
        ("chains converged (R-hat < 1.01)", number(figures.get("posterior/converged"), 0)),
        ("mean distance (σ of the chain)", number(figures.get("posterior/mean_distance"))),
        ("largest distance of a state", number(figures.get("posterior/largest_distance"))),
        ("width, filter over chain", number(figures.get("posterior/width_ratio"))),
        (
            "mean distance as shipped, Huber weights on",
            number(figures.get("posterior/shipped_mean_distance")),
        ),
    ]
    text = (
        "The filter's posterior against a long adaptive Metropolis run (Haario, Saksman, Tamminen "
        "2001; 4 chains) with the same prior, data and Gaussian likelihood, over all states."
    )
    return Section("Distance from the posterior", text, [Table(("", "measured"), rows)])


def _health(results: Results) -> Section:
    figures = results.figures
    base = f"claims/{OURS}"
    rows: list[Row] = [
        (label, number(figures.get(f"{base}/{mean}"), 2), number(figures.get(f"{base}/{p95}"), 2))
        for label, mean, p95 in (
            ("state of health (points)", "health/mean_points", "health/p95_points"),
            ("range from full (%)", "range/mean_percent", "range/p95_percent"),
        )
    ]
    forecasts: list[Row] = [
        (
            label,
            number(figures.get(f"forecast/{FLEET_PRIOR}/{name}/error_percent"), 1),
            number(figures.get(f"forecast/{FLEET_PRIOR}/{name}/inside_95"), 0, 100),
        )
        for label, name in (
            ("20 % of life before", "20_percent_before"),
            ("50 % of life before", "half_life"),
        )
    ]
    text = (
        "Against the simulator's truth at all ages, claimed before each trip. Range is from full "
        "to the cut-off at the bundle's reference speed and load. Life ends where health falls to "
        "80 %; a forecast beyond 4 times the odometer counts as just that."
    )
    return Section(
        "Health, range and end of life",
        text,
        [
            Table(("error", "mean", "p95"), rows),
            Table(
                (
                    "odometer of 80 % health, predicted (with fleet prior)",
                    "error (%)",
                    "inside 95 % (%)",
                ),
                forecasts,
            ),
        ],
        ("health",),
    )
