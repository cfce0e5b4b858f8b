"""`firmware-sim`: write synthetic fleets and cells to files, or play a vehicle onto a CAN bus.

Must never simulate anything itself: it parses, shows the progress on stderr and the result on
stdout, and turns errors into one sentence and an exit code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from firmware_sim.can_command import BusSettings, PlaySettings, dbc_text, play_vehicle
from firmware_sim.circuit_files import circuit_dataset
from firmware_sim.circuit_fleet import (
    KM_BETWEEN_TRIPS,
    CircuitFleetSettings,
    simulate_circuit_fleet,
)
from firmware_sim.dataset_folder import Dataset, FileFormat, require_free, write_dataset
from firmware_sim.errors import FirmwareSimError, SettingsError
from firmware_sim.fleet_files import dataset_of
from firmware_sim.published_fleet import FleetSettings, simulate_fleet
from firmware_sim.pybamm_cells import CellSettings, simulate_cells
from firmware_sim.pybamm_files import cells_dataset
from firmware_sim.summaries import summary_of_cells, summary_of_circuit, summary_of_published

FAILED: Final = 1
USAGE: Final = 2

EPILOG: Final = """\b
Examples:
  firmware-sim fleet --vehicles 100 --trips 100 --seed 1 --out runs/fleet
  firmware-sim fleet --vehicles 5 --trips 40 --out runs/small --format csv --json
  firmware-sim fleet --cell equivalent-circuit --vehicles 20 --seed 1 --out runs/circuit
  firmware-sim pybamm --cells 2 --cycles 150 --out runs/pybamm
  firmware-sim can --vehicle V001 --trips 3 --speed-up 60 --fault drop:BMS_Pack@10..20

\b
Exit codes:
  0  done
  1  failed: the folder is occupied, a battery is worn out, PyBaMM is missing, the disk refuses
  2  usage: an option is missing or makes no sense
"""

Progressing = Callable[[int], None]
Out = Annotated[Path, typer.Option(help="Folder to write; absent, empty or an earlier fleet.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")]
Format = Annotated[FileFormat, typer.Option("--format", help="Format of the tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Cell(StrEnum):
    """What kind of battery the fleet has."""

    PUBLISHED = "published"
    EQUIVALENT_CIRCUIT = "equivalent-circuit"


@dataclass(frozen=True)
class Made:
    """What a simulation gave: its tables, and what is worth telling of it."""

    dataset: Dataset
    summary: dict[str, Any]


@app.callback(epilog=EPILOG)
def _program() -> None:
    """Simulate vehicles whose batteries age, and write what their BMS measures."""


@app.command(epilog=EPILOG)
def fleet(  # noqa: PLR0913 - each option is one argument
    out: Out,
    vehicles: Annotated[int, typer.Option(min=1, help="Number of vehicles.")] = 100,
    trips: Annotated[int, typer.Option(min=1, help="Recorded trips of each vehicle.")] = 100,
    seed: Seed = 1,
    file_format: Format = FileFormat.PARQUET,
    cell: Annotated[Cell, typer.Option(help="Kind of battery.")] = Cell.PUBLISHED,
    km_between_trips: Annotated[
        float | None,
        typer.Option(
            help=(
                f"Odometer between recorded trips of equivalent circuits, {KM_BETWEEN_TRIPS[0]:g} "
                f"to {KM_BETWEEN_TRIPS[1]:g} [default: 2000]"
            )
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write a fleet: trips, discharge curves and, apart from them, the truth.

    The published fleet drives one trip a day. Cars with equivalent-circuit cells live through
    seasons, standard drive cycles and years; some of their trips are recorded. The truth (capacity,
    health, range) goes to OUT/truth, which no twin ever reads.
    """

    def make(progress: Progressing) -> Made:
        if cell is Cell.EQUIVALENT_CIRCUIT:
            apart = {} if km_between_trips is None else {"km_between_trips": km_between_trips}
            circuit = simulate_circuit_fleet(
                CircuitFleetSettings(vehicles, trips, seed, **apart), progress
            )
            return Made(circuit_dataset(circuit), summary_of_circuit(circuit))
        if km_between_trips is not None:
            remedy = "leave it out, or ask for --cell equivalent-circuit"
            raise SettingsError("km_between_trips", km_between_trips, remedy)
        published = simulate_fleet(FleetSettings(vehicles, trips, seed), progress)
        return Made(dataset_of(published), summary_of_published(published))

    with _told():
        _show(_make(make, vehicles, out, file_format), as_json=as_json)


@app.command(epilog=EPILOG)
def pybamm(
    out: Out,
    cells: Annotated[int, typer.Option(min=1, help="Number of cells.")] = 2,
    cycles: Annotated[int, typer.Option(min=1, help="Full cycles of each cell.")] = 150,
    seed: Seed = 1,
    file_format: Format = FileFormat.PARQUET,
    *,
    as_json: AsJson = False,
) -> None:
    """Write cells that PyBaMM cycles and ages (SPM with SEI growth, accelerated): the same tables.

    A cycle is a trip, the odometer is the throughput in ampere-hours. Needs the extra `science`.
    """

    def make(progress: Progressing) -> Made:
        found = simulate_cells(CellSettings(cells, cycles, seed), progress)
        return Made(cells_dataset(found), summary_of_cells(found))

    with _told():
        _show(_make(make, cells, out, file_format), as_json=as_json)


@app.command(epilog=EPILOG)
def can(  # noqa: PLR0913 - each option is one argument
    vehicle: Annotated[str, typer.Option(help="V001, V002 and so on.")] = "V001",
    cell: Annotated[Cell, typer.Option(help="Kind of battery.")] = Cell.PUBLISHED,
    first_trip: Annotated[int, typer.Option(min=1, help="Its first trip that is played.")] = 1,
    trips: Annotated[int, typer.Option(min=1, help="Trips that are played.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the fleet, and of the faults.")] = 1,
    speed_up: Annotated[float, typer.Option(help="How much faster than it was driven.")] = 1.0,
    pause_s: Annotated[float, typer.Option(min=0.0, help="Ignition off after a trip.")] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:MESSAGE]@START..END",
            help="drop, stuck, flip, late or babble, in seconds since the start; may be repeated.",
        ),
    ] = None,
    interface: Annotated[str, typer.Option(help="Of python-can.")] = "udp_multicast",
    channel: Annotated[str, typer.Option(help="Its channel, e.g. vcan0.")] = "239.74.163.2",
    port: Annotated[int | None, typer.Option(help="Of UDP multicast.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Play a vehicle of a fleet onto a CAN bus, as the sample DBC describes it.

    Frames come at their own rates in real time; with --speed-up the car lives faster, and its
    clock on the bus with it. `firmware-sim dbc` prints the DBC. Needs python-can and cantools.
    """
    settings = PlaySettings(
        vehicle=vehicle,
        is_circuit=cell is Cell.EQUIVALENT_CIRCUIT,
        first_trip=first_trip,
        trips=trips,
        seed=seed,
        speed_up=speed_up,
        pause_s=pause_s,
        faults=fault or [],
    )
    with _told():
        _show(play_vehicle(settings, BusSettings(interface, channel, port)), as_json=as_json)


@app.command(epilog=EPILOG)
def dbc() -> None:
    """Print the DBC of the bus that `firmware-sim can` plays: `firmware-sim dbc > bms.dbc`."""
    typer.echo(dbc_text(), nl=False)


@contextmanager
def _told() -> Iterator[None]:
    """An error becomes one sentence and an exit code."""
    try:
        yield
    except FirmwareSimError as error:
        typer.echo(f"firmware-sim: {error}", err=True)
        raise typer.Exit(USAGE if isinstance(error, SettingsError) else FAILED) from error


def _make(
    make: Callable[[Progressing], Made], vehicles: int, out: Path, file_format: FileFormat
) -> dict[str, Any]:
    """Simulate and write with a progress bar; the occupied folder is refused before the work."""
    require_free(out)
    started = time.perf_counter()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        made = make(_bar(bars, "simulating", vehicles))
        files = write_dataset(made.dataset, out, file_format, _bar(bars, "writing", vehicles))
    seconds = round(time.perf_counter() - started, 2)
    return {**made.summary, "seconds": seconds, "files": [str(file) for file in files]}


def _bar(bars: Progress, label: str, vehicles: int) -> Callable[[int], None]:
    task = bars.add_task(label, total=vehicles)
    return lambda done: bars.update(task, completed=done)


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
