"""`firmware-sim`: write a synthetic fleet to files.

Must never simulate anything itself: it parses, shows the progress on stderr and the result on
stdout, and turns errors into one sentence and an exit code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from firmware_sim import battery
from firmware_sim.dataset_folder import FileFormat, require_free
from firmware_sim.errors import FirmwareSimError, SettingsError
from firmware_sim.fleet_files import write_fleet
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

FAILED: Final = 1
USAGE: Final = 2

EPILOG: Final = """\b
Examples:
  firmware-sim fleet --vehicles 100 --trips 100 --seed 1 --out runs/fleet
  firmware-sim fleet --vehicles 5 --trips 40 --out runs/small --format csv --json

\b
Exit codes:
  0  done
  1  failed: the folder is occupied, a battery is worn out, the disk refuses
  2  usage: an option is missing or makes no sense
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(epilog=EPILOG)
def _program() -> None:
    """Simulate vehicles whose batteries age, and write what their BMS measures."""


@app.command(epilog=EPILOG)
def fleet(
    out: Annotated[Path, typer.Option(help="Folder to write; absent, empty or an earlier fleet.")],
    vehicles: Annotated[int, typer.Option(min=1, help="Number of vehicles.")] = 100,
    trips: Annotated[int, typer.Option(min=1, help="Trips of each vehicle, one a day.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 1,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="Format of the tables.")
    ] = FileFormat.PARQUET,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write the published fleet: trips, discharge curves and, apart from them, the truth.

    The truth (degradation, capacity, range) goes to OUT/truth, which no twin ever reads.
    """
    try:
        settings = FleetSettings(vehicles=vehicles, trips=trips, seed=seed)
        summary = _make(settings, out, file_format)
    except FirmwareSimError as error:
        typer.echo(f"firmware-sim: {error}", err=True)
        raise typer.Exit(USAGE if isinstance(error, SettingsError) else FAILED) from error
    _show(summary, as_json=as_json)


def _make(settings: FleetSettings, out: Path, file_format: FileFormat) -> dict[str, Any]:
    """Simulate and write with a progress bar; the occupied folder is refused before the work."""
    require_free(out)
    started = time.perf_counter()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        data = simulate_fleet(settings, _bar(bars, "simulating", settings.vehicles))
        files = write_fleet(data, out, file_format, _bar(bars, "writing", settings.vehicles))
    return _summary(data, files, time.perf_counter() - started)


def _bar(bars: Progress, label: str, vehicles: int) -> Callable[[int], None]:
    task = bars.add_task(label, total=vehicles)
    return lambda done: bars.update(task, completed=done)


def _summary(data: FleetData, files: tuple[Path, ...], seconds: float) -> dict[str, Any]:
    settings = data.settings
    degradation = data.degradation_at_end()
    health = battery.usable_energy_wh(degradation) / battery.usable_energy_wh(0.0)
    return {
        "vehicles": settings.vehicles,
        "trips": settings.vehicles * settings.trips,
        "samples": data.samples.voltage_v.size,
        "seed": settings.seed,
        "mean_odometer_km": round(float(data.trips.distance_km.sum(axis=1).mean()), 1),
        "mean_degradation_at_end": round(float(degradation.mean()), 4),
        "mean_state_of_health_at_end": round(float(health.mean()), 4),
        "lowest_state_of_health_at_end": round(float(np.min(health)), 4),
        "seconds": round(seconds, 2),
        "files": [str(file) for file in files],
    }


def _show(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    table = Table(show_header=False)
    for name, value in summary.items():
        text = "\n".join(value) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), text)
    Console().print(table)


def main() -> None:
    """Entry point of `firmware-sim`."""
    app(prog_name="firmware-sim")
