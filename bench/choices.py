"""What each choice of the calibration is worth: the loop without the wire, one choice taken back.

The agent's thinning and the cloud's own decision on every trip, on simulated vehicles of a seed
that no other figure uses and on the measured cells. docs/decisions.md takes its numbers from here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.offline_loop import drive, ours, trips_of
from cloud.training.selection import Choice
from cloud.training.train import train_bundle
from common.calibration import Settings
from common.manifest import Manifest
from common.model import VoltageModel
from demo.measured import read_cells, write_table
from demo.real import CELL_SETTINGS
from demo.simulated import train, training_settings, vehicles_of
from demo.vehicles import VehicleData
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 1
THRESHOLD_V = 0.05
VEHICLES, TRIPS = 8, 100
LAST_TRIPS = 20
CELLS = Path(__file__).resolve().parent.parent / "demo" / "data" / "calce_cs2"
SHIPPED = Settings()
CELL_RATE_PRIOR = 1e-4  # of a gain per Ah: the whole life of a cell is about 800 Ah


@dataclass(frozen=True)
class Variant:
    """One way to calibrate: the manifest that the loop runs, and the one that calibrates."""

    name: str
    manifest: Manifest
    calibrating: Manifest
    settings: Settings = SHIPPED


@dataclass(frozen=True)
class Row:
    """Mean error over all trips and over the last ones of each vehicle, and updates per 1,000."""

    data: str
    variant: str
    error_v: float
    error_last_v: float
    updates_per_1000: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.choices", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two vehicles and one cell")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_measure(Path(folder), quick=options.quick))
    if options.json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        _print(rows)
    return 0


def _measure(folder: Path, *, quick: bool) -> Iterator[Row]:
    fleet = vehicles_of(simulate_fleet(FleetSettings(VEHICLES, TRIPS, SEED)))
    bundle = train(training_settings(THRESHOLD_V), folder / "fleet", SEED, 20).bundle
    yield from _rows(
        "simulated fleet", fleet[: 2 if quick else None], VoltageModel(bundle), _of(bundle.manifest)
    )
    cells = read_cells(CELLS)
    write_table(cells, folder / "cells.csv", "voltage_v")
    driven = cells[: 1 if quick else None]
    for label, names in (
        ("measured cells", CELL_SETTINGS.choice.names),
        ("measured cells, no offset in charge", ("gain:discharged_ah", "offset:output")),
    ):
        settings = replace(CELL_SETTINGS, choice=Choice(names=names))
        out = folder / label.replace(" ", "-")
        bundle = train_bundle(settings, folder / "cells.csv", out, date(2026, 1, 1)).bundle
        variants = _of(bundle.manifest) if label == "measured cells" else _of(bundle.manifest)[:1]
        yield from _rows(label, driven, VoltageModel(bundle), variants)


def _of(manifest: Manifest) -> list[Variant]:
    """The shipped way, and each choice taken back."""
    has_rate = any(parameter.rate_prior_std for parameter in manifest.parameters)
    other_rate = _with_rate(manifest, 0.0 if has_rate else CELL_RATE_PRIOR)
    # A threshold that no trace exceeds: then no prior is ever opened again.
    patient = msgspec.structs.replace(manifest, error_threshold_v=1e9)
    return [
        Variant("as shipped", manifest, manifest),
        Variant("without rate" if has_rate else "with rate", other_rate, other_rate),
        Variant("1 pass", manifest, manifest, Settings(passes=1)),
        Variant("2 passes", manifest, manifest, Settings(passes=2)),
        Variant("without Huber weights", manifest, manifest, Settings(huber=1e9)),
        Variant("prior never reopened", manifest, patient),
    ]


def _with_rate(manifest: Manifest, std: float) -> Manifest:
    parameters = [msgspec.structs.replace(p, rate_prior_std=std) for p in manifest.parameters]
    return msgspec.structs.replace(manifest, parameters=parameters)


def _rows(
    data: str, vehicles: Sequence[VehicleData], model: VoltageModel, variants: Sequence[Variant]
) -> Iterator[Row]:
    console = Console(stderr=True)
    trips = [trips_of(vehicle, variants[0].manifest) for vehicle in vehicles]
    for variant in track(variants, data, console=console, disable=not console.is_terminal):
        method = ours(variant.name, model, variant.manifest, variant.settings, variant.calibrating)
        driven = drive(trips, model, method)
        errors = [life.error_v for life in driven]
        yield Row(
            data,
            variant.name,
            float(np.mean(np.concatenate(errors))),
            float(np.mean([e[-LAST_TRIPS:].mean() for e in errors])),
            1000 * sum(life.updated.sum() for life in driven) / sum(len(e) for e in errors),
        )


def _print(rows: Sequence[Row]) -> None:
    table = Table(title="What each choice is worth (threshold 0.05 V)")
    for heading in ("data", "calibration", "error V", f"last {LAST_TRIPS}", "updates / 1,000"):
        table.add_column(heading, justify="left" if heading in {"data", "calibration"} else "right")
    for row in rows:
        table.add_row(
            row.data,
            row.variant,
            f"{row.error_v:.4f}",
            f"{row.error_last_v:.4f}",
            f"{row.updates_per_1000:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
