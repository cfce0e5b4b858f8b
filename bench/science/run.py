"""Carry a plan out: tuning first, then every section in a few processes, the timing alone.

Must never let a reporting vehicle into the tuning, nor another job beside the timing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.science.car_section import winter
from bench.science.cells_section import DATA, leave_out
from bench.science.fleet_section import report_on, tune_on
from bench.science.plan import Plan
from bench.science.results import Results, gathered
from bench.science.timing import timing_figures
from bench.science.tuning import best_of, merged
from demo.real import CELLS


@dataclass(frozen=True)
class Job:
    """One piece of work, a function of its arguments alone."""

    says: str
    work: Callable[..., Any]
    arguments: tuple[object, ...]


def run(plan: Plan) -> Results:
    """Every section of the plan; a bar on stderr says how far it is."""
    started = time.monotonic()
    cells = range(len(list((DATA / CELLS).glob("*.csv.gz"))))[: plan.cells]
    tuning = [Job(f"tuning seed {s}", tune_on, (s, plan)) for s in plan.tuning_seeds]
    measured = [Job(f"cell {n + 1}", leave_out, (n, plan)) for n in cells]
    measured += [Job(f"car, network {s}", winter, (s, plan)) for s in plan.car_seeds]
    count = len(tuning) + len(measured) + len(plan.reporting_seeds) + 1
    with _bar(count) as progress:
        task = progress.add_task("", total=count)

        def done(says: str) -> None:
            progress.update(task, advance=1, description=says)

        first = _carry_out([*tuning, *measured], plan.processes, done)
        trials = merged(first[: len(tuning)])
        chosen = best_of(trials)
        reports = [
            Job(f"fleet of seed {s}", report_on, (s, plan, chosen)) for s in plan.reporting_seeds
        ]
        seeds = _carry_out(reports, plan.processes, done)
        timing = timing_figures(plan)
        done("timing")
    cell_results = first[len(tuning) : len(tuning) + len(cells)]
    figures = gathered(seeds, cell_results, first[len(tuning) + len(cells) :], timing)
    seconds = time.monotonic() - started
    return Results(plan, trials, chosen, seeds, cell_results, figures, seconds)


def _carry_out(jobs: Sequence[Job], processes: int, done: Callable[[str], None]) -> list[Any]:
    """Results in the order of the jobs; without processes, one after the other here."""
    if not processes:
        found = []
        for job in jobs:
            found.append(job.work(*job.arguments))
            done(job.says)
        return found
    # Spawned, not forked: the model's runtime has threads of its own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures: dict[Future[Any], Job] = {
            pool.submit(job.work, *job.arguments): job for job in jobs
        }
        for future in as_completed(futures):
            future.result()
            done(futures[future].says)
        return [future.result() for future in futures]


def _bar(count: int) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("science"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal or not count,
    )
