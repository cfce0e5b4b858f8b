"""Carry a plan out: tuning first, then every section in a few processes, the timing alone.

Must never let a reporting vehicle into the tuning, nor another job beside the timing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.science.car_section import winter
from bench.science.cells_section import DATA, CellResult, leave_out
from bench.science.fleet_section import SeedResult, report_on, tune_on
from bench.science.plan import Plan
from bench.science.results import Results, gathered
from bench.science.spread import Figures
from bench.science.timing import timing_figures
from bench.science.tuning import Trials, best_of, merged
from demo.real import CELLS

P = ParamSpec("P")
T = TypeVar("T")


def run(plan: Plan) -> Results:
    """Every section of the plan; a bar on stderr says how far it is."""
    started = time.monotonic()
    cells = range(len(list((DATA / CELLS).glob("*.csv.gz"))))[: plan.cells]
    jobs = len(plan.tuning_seeds) + len(cells) + len(plan.car_seeds) + len(plan.reporting_seeds)
    with _bar() as progress:
        task = progress.add_task("tuning", total=jobs + 1)
        with _executor(plan.processes) as pool:

            def begin(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
                job = pool.submit(work, *args, **kwargs)
                job.add_done_callback(lambda _: progress.advance(task))
                return job

            tuning = [begin(tune_on, seed, plan) for seed in plan.tuning_seeds]
            measured = [begin(leave_out, number, plan) for number in cells]
            car = [begin(winter, seed, plan) for seed in plan.car_seeds]
            trials = merged(_results(tuning, pool))
            chosen = best_of(trials)
            progress.update(task, description="fleets, cells, car")
            seeds = [begin(report_on, seed, plan, chosen) for seed in plan.reporting_seeds]
            found = _results(seeds, pool), _results(measured, pool), _results(car, pool)
        progress.update(task, description="timing")
        timing = timing_figures(plan)
        progress.advance(task)
    return _gather(plan, trials, found, timing, time.monotonic() - started)


def _gather(
    plan: Plan,
    trials: Trials,
    found: tuple[Sequence[SeedResult], Sequence[CellResult], Sequence[Figures]],
    timing: Figures,
    seconds: float,
) -> Results:
    seeds, cells, car = found
    figures = gathered(seeds, cells, car, timing)
    return Results(plan, trials, best_of(trials), seeds, cells, figures, seconds)


def _executor(processes: int) -> Executor:
    """Spawned, not forked: the model's runtime has threads. 0 processes: a thread of this one."""
    if not processes:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def _results(jobs: Sequence[Future[T]], pool: Executor) -> list[T]:
    """In the order of the jobs; the first failure ends the run without waiting for the others."""
    try:
        return [job.result() for job in jobs]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("science"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )
