"""What every demonstration does with its vehicles and its bundle: run the loop, evaluate, report.

Must never overwrite a folder that holds something other than an earlier run.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cloud.commands.api_key_reports import Wanted, create
from cloud.training.errors import OptionError
from common.bundle import Bundle
from common.errors import TwinError
from demo.evaluate import Evaluator, streaming_bytes
from demo.history import read_history
from demo.loop import LoopRun, Stage, agents_log, run_loop, stage
from demo.report import write_report
from demo.results import RunResults, TripRow
from demo.summary import figures, table
from demo.tables import write_report_json, write_trips_csv
from demo.vehicles import VehicleData, ending_at
from firmware_sim.errors import FirmwareSimError, SettingsError

MARK = ".living-twin-run"


@dataclass(frozen=True)
class ExtraFigure:
    """A figure of one demonstration alone: name and value in JSON, its row in the table."""

    name: str
    value: float
    label: str
    text: str


def _nothing_more(_trips: Sequence[TripRow]) -> Sequence[ExtraFigure]:
    return ()


@dataclass(frozen=True)
class Story:
    """What a report tells beside what every run has."""

    title: str
    subtitle: str
    sources: tuple[str, ...]
    figures_of: Callable[[Sequence[TripRow]], Sequence[ExtraFigure]] = _nothing_more


class OccupiedFolderError(TwinError):
    """The folder for the results holds something that no run has written, or cannot be made."""

    def __init__(self, folder: Path, problem: str = "holds other files") -> None:
        self.folder, self.problem = folder, problem
        super().__init__(f"{folder} {problem}: name another folder with --out.")


class Narrator:
    """Says on stderr what happens; tables go to stdout."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.output = Console()

    def say(self, text: str) -> None:
        """One line, as it is."""
        self.console.print(text, markup=False, highlight=False)


def require_fresh(folder: Path) -> None:
    """Make the folder for the results, in place of an earlier run. Raises OccupiedFolderError."""
    try:
        if folder.exists():
            if any(folder.iterdir()) and not (folder / MARK).exists():
                raise OccupiedFolderError(folder)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise OccupiedFolderError(folder, f"cannot be used ({error.strerror or error})") from error


def run_and_report(
    vehicles: Sequence[VehicleData],
    bundle: Bundle,
    out: Path,
    story: Story,
    narrator: Narrator,
    *,
    keep_running: bool = False,
) -> RunResults:
    """Drive the vehicles through the loop and write report.html, report.json and trips.csv.

    Their trips are moved in time to end now: an operator who looks would find them stale.
    """
    vehicles = ending_at(vehicles, time.time())
    with stage(bundle.path, out / "service") as on_stage:
        narrator.say(
            f"broker {on_stage.broker.kind} on port {on_stage.broker.port}, API {on_stage.api}"
        )
        with agents_log(out / "agents.log"):
            run = _run_with_progress(vehicles, bundle, on_stage, out, narrator)
        if keep_running:
            results = _report(vehicles, bundle, run, out, story, narrator)
            key_file = _api_key(run.database, out)
            narrator.say(f"still running: {on_stage.api}/api/v1/docs (Ctrl-C ends it)")
            shown = (
                f'curl -H "Authorization: Bearer $(cat {key_file})" {on_stage.api}/api/v1/vehicles'
            )
            narrator.say(f"to ask it: {shown}")
            _wait_for_interrupt()
            return results
    return _report(vehicles, bundle, run, out, story, narrator)


def _api_key(database: Path, out: Path) -> Path:
    """A key of the API for whoever runs the demonstration, readable by nobody else."""
    wanted = Wanted("demo", "admin", cohorts=None, expires_at=None)
    _, key = create(database, wanted, time.time())
    path = out / "api-key"
    path.touch(mode=0o600)
    path.write_text(key + "\n", encoding="ascii")
    return path


def exit_code(main: Callable[[], int]) -> int:
    """Run a demonstration's main; its errors become one sentence and exit code 1 (2: usage)."""
    try:
        return main()
    except (TwinError, FirmwareSimError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2 if isinstance(error, (OptionError, SettingsError)) else 1
    except KeyboardInterrupt:
        return 130


def _report(
    vehicles: Sequence[VehicleData],
    bundle: Bundle,
    run: LoopRun,
    out: Path,
    story: Story,
    narrator: Narrator,
) -> RunResults:
    narrator.say("evaluating and drawing")
    found = Evaluator(bundle, read_history(run.database)).evaluate(vehicles)
    extra = story.figures_of(found.trips)
    values = figures(found, run, streaming_bytes(vehicles), bundle.manifest)
    values |= {figure.name: figure.value for figure in extra}
    results = RunResults(
        title=story.title,
        subtitle=story.subtitle,
        manifest=bundle.manifest,
        trips=found.trips,
        revisions=found.revisions,
        example=found.example,
        history=found.history,
        summary=table(values) | {figure.label: figure.text for figure in extra},
        sources=list(story.sources),
    )
    write_trips_csv(out / "trips.csv", results.trips, odometer_unit=bundle.manifest.odometer_unit)
    write_report_json(out / "report.json", results, values)
    page = write_report(out, results)
    _print_table(results, narrator)
    narrator.say(f"report: {page}")
    return results


def _run_with_progress(
    vehicles: Sequence[VehicleData], bundle: Bundle, on_stage: Stage, out: Path, narrator: Narrator
) -> LoopRun:
    columns = [
        TextColumn("driving"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trips"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=narrator.console) as progress:
        task = progress.add_task("driving", total=sum(len(v.trips) for v in vehicles))
        return run_loop(vehicles, bundle.path, on_stage, out, lambda: progress.advance(task))


def _print_table(results: RunResults, narrator: Narrator) -> None:
    shown = Table(title=results.title, show_header=False)
    for label, text in results.summary.items():
        shown.add_row(label, text)
    narrator.output.print(shown)


def _wait_for_interrupt() -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        stopped.wait()
    except KeyboardInterrupt:
        return
