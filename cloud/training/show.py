"""Print training results: tables for people, JSON for programs. Must never compute."""

from __future__ import annotations

import msgspec
import typer
from rich.markup import escape
from rich.table import Column, Table

from cloud.commands.console import wide_console
from cloud.training.fit import Errors
from cloud.training.identifiability import percent
from cloud.training.train import TrainingReport
from common.manifest import Identifiability, Sensitivity


def training(report: TrainingReport) -> None:
    """The report of `twin-cloud train` on stdout, its warnings on stderr."""
    table = Table(show_header=False)
    manifest = report.bundle.manifest
    rows = {
        "bundle": f"{report.bundle.sha256[:12]} in {report.bundle.path}",
        "trained on": f"{report.rows} rows, {report.trips} trips, {report.vehicles} vehicles",
        "error in training": _errors(report.train),
        f"error on {report.held_out_trips} held-out trips": _errors(report.held_out),
        ".tflite against scikit-learn": f"at most {report.forward_error_v:.1e} V apart",
        "model discrepancy": f"{manifest.model_discrepancy_std_v:.4f} V",
        "cut-off": f"{manifest.cutoff_voltage_v:g} V",
        "parameters": ", ".join(manifest.parameter_names),
    }
    for label, value in rows.items():
        table.add_row(label, escape(value))
    wide_console().print(table)
    sensitivity(report.sensitivity, as_json=False)
    for warning in report.warnings:
        typer.echo(warning, err=True)


def sensitivity(found: Sensitivity, *, as_json: bool) -> None:
    """Indices, groups, pairs with half widths of their 95 % intervals; what can be told apart.

    The strongest first; last the paragraph that says why these parameters were selected.
    """
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    console = wide_console()
    console.print(_indices(found))
    if found.groups:
        console.print(_groups(found))
    if found.pairs:
        console.print(_pairs(found))
    if found.identifiability:
        console.print(_identifiability(found.identifiability))
    typer.echo(found.explanation)


def _indices(found: Sensitivity) -> Table:
    folded = (Column(name, overflow="fold") for name in ("name", "first order", "total"))
    table = Table(*folded, "selected", Column("reason", overflow="fold"))
    for index in sorted(found.indices, key=lambda index: -index.total):
        table.add_row(
            escape(index.name),
            _interval(index.first, index.first_ci),
            _interval(index.total, index.total_ci),
            "yes" if index.selected else "",
            escape(index.reason),
        )
    return table


def _groups(found: Sensitivity) -> Table:
    table = Table("group, varied as one", "first order", "total", "members")
    for group in sorted(found.groups, key=lambda group: -group.total):
        first = _interval(group.first, group.first_ci)
        total = _interval(group.total, group.total_ci)
        table.add_row(escape(group.name), first, total, f"{len(group.members)}")
    return table


def _pairs(found: Sensitivity) -> Table:
    table = Table(f"pairs beyond the noise, of {found.pairs_tested}", "second order")
    for pair in found.pairs:
        name = escape(f"{pair.first} × {pair.second}")
        table.add_row(name, _interval(pair.index, pair.ci))
    return table


def _identifiability(found: Identifiability) -> Table:
    """Posterior standard deviations as a share of the prior's, and correlations."""
    names = (Column(escape(name), overflow="fold") for name in found.names)
    table = Table("after", "of", "share of prior", *names, "condition number")
    for learnt in found.learnt:
        condition = f"{learnt.condition_number:,.3g}"
        for name, std, correlation in zip(
            found.names, learnt.posterior_std, learnt.correlation, strict=True
        ):
            cells = (f"{value:+.2f}" for value in correlation)
            trips = f"{learnt.trips} trip{'s' if learnt.trips > 1 else ''}"
            table.add_row(trips, escape(name), percent(std), *cells, condition)
    return table


def _interval(value: float, ci: float) -> str:
    return f"{value:.3f} ± {ci:.3f}"


def _errors(errors: Errors) -> str:
    return f"RMSE {errors.rmse_v:.4f} V, MAE {errors.mae_v:.4f} V"
