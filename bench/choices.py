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

from cloud.calibrator import Case, MakeRevision, decide
from cloud.training.selection import Choice
from cloud.training.train import train_bundle
from common.calibration import Settings, align, extrapolate, prior
from common.estimate import Estimate
from common.fleet_prior import FleetPrior, growth_at, start
from common.manifest import Manifest
from common.model import VoltageModel
from common.thinning import thin
from common.trace import TraceArrays, from_wire, to_wire
from demo.measured import read_cells, write_table
from demo.real import CELL_SETTINGS
from demo.simulated import train, training_settings, vehicles_of
from demo.vehicles import FloatArray, TripData, VehicleData, feature_rows
from edge_agent.decisions import is_breach
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 1
THRESHOLD_V = 0.05
VEHICLES, TRIPS = 8, 100
TRACE_POINTS = 50
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
class Driven:
    """Errors of all trips in volts, and the estimates of those that brought an update."""

    errors_v: FloatArray
    updates: list[Estimate]


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
        show(rows)
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
    for variant in track(variants, data, console=console, disable=not console.is_terminal):
        yield row_of(data, variant.name, [drive(vehicle, model, variant) for vehicle in vehicles])


def row_of(data: str, name: str, driven: Sequence[Driven]) -> Row:
    """What vehicles came to together."""
    errors = [found.errors_v for found in driven]
    return Row(
        data,
        name,
        float(np.mean(np.concatenate(errors))),
        float(np.mean([e[-LAST_TRIPS:].mean() for e in errors])),
        1000 * sum(len(found.updates) for found in driven) / sum(len(e) for e in errors),
    )


def drive(
    vehicle: VehicleData, model: VoltageModel, variant: Variant, fleet: FleetPrior | None = None
) -> Driven:
    """A vehicle's whole life; with a fleet's prior it starts and speeds up as the fleet did."""
    manifest = variant.manifest
    estimate = start(fleet, manifest, 0.0) if fleet else prior(manifest)
    errors: list[float] = []
    updates: list[Estimate] = []
    for trip in vehicle.trips:
        rows = _rows_of(trip, manifest)
        odometer = float(trip.odometer[0])
        there = extrapolate(estimate, manifest, odometer)
        first = rows.features[0], float(rows.voltage_v[0])
        theta = align(there, *first, model, manifest).theta
        predicted = model.predict(rows.features, theta)
        errors.append(float(np.abs(predicted - rows.voltage_v).mean()))
        if is_breach(errors[-1], manifest.error_threshold_v):
            trace = from_wire(to_wire(thin(rows, TRACE_POINTS)), manifest)
            case = Case(trace, odometer, estimate, estimate)
            (made,) = decide([case], model, variant.calibrating, variant.settings)
            if isinstance(made, MakeRevision):
                estimate = made.calibrated.estimate
                if fleet:
                    estimate = replace(estimate, growth=growth_at(fleet, odometer))
                updates.append(estimate)
    return Driven(np.array(errors), updates)


def _rows_of(trip: TripData, manifest: Manifest) -> TraceArrays:
    found = feature_rows(trip, manifest)
    times = trip.time_s[found.rows]
    later = np.concatenate([[True], np.diff(times) > 0])
    voltage_v = trip.voltage_v[found.rows]
    return TraceArrays(times[later] - times[0], found.features[later], voltage_v[later])


def show(rows: Sequence[Row]) -> None:
    """Print the rows for people."""
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
