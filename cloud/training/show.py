"""Print training results: tables for people, JSON for programs. Must never compute."""

from __future__ import annotations

import msgspec
import typer
from rich.markup import escape
from rich.table import Column, Table

from cloud.console import wide_console
from cloud.training.fit import Errors
from cloud.training.train import TrainingReport
from common.manifest import Sensitivity


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
    """Indices with the half widths of their 95 % intervals, the strongest first."""
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    folded = (Column(name, overflow="fold") for name in ("name", "first order", "total"))
    table = Table(*folded, "selected", Column("reason", overflow="fold"))
    for index in sorted(found.indices, key=lambda index: -index.total):
        table.add_row(
            escape(index.name),
            f"{index.first:.3f} ± {index.first_ci:.3f}",
            f"{index.total:.3f} ± {index.total_ci:.3f}",
            "yes" if index.selected else "",
            escape(index.reason),
        )
    wide_console().print(table)


def _errors(errors: Errors) -> str:
    return f"RMSE {errors.rmse_v:.4f} V, MAE {errors.mae_v:.4f} V"
