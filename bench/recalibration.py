"""Time of one recalibration (50 points, 2 parameters) against filterpy and the published method.

All run on one core with the same .tflite behind them, on the same breach traces, in one run. The
published method is filterpy's UKF as shipped: 40 sweeps over the same points, alpha 1, beta 2,
kappa 0, P = Q = R = 1e-4 (aws-do-pm).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.filterpy_ukf import SWEEPS, filterpy_update
from common.calibration import Estimate, Settings, calibrate, prior
from common.manifest import Manifest
from common.model import VoltageModel
from common.thinning import thin
from common.trace import TraceArrays
from demo.simulated import TRAINING_VEHICLES, train, training_settings, vehicles_of
from demo.vehicles import TripData, feature_rows
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

POINTS = 50
SEED = 41
KM_SINCE = 1500.0
PROCESS_NOISE = 1e-8  # variance per km: 0.4 % of a gain over KM_SINCE
LAST_UPDATE_TRIP, BREACH_TRIP = 24, 29


@dataclass(frozen=True)
class Case:
    """A breach trace, and the estimate of the vehicle's last update, a few trips before."""

    trace: TraceArrays
    start: Estimate


Method = Callable[[Case], float]


@dataclass(frozen=True)
class Row:
    """One method: median and 90th percentile in milliseconds, mean error on the trace after, V."""

    method: str
    median_ms: float
    p90_ms: float
    error_after_v: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.recalibration", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args(arguments)
    repeats = 5 if options.quick else 30
    rows = _measure(repeats)
    if options.json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        _print(rows)
    return 0


def _measure(repeats: int) -> list[Row]:
    fleet = vehicles_of(simulate_fleet(FleetSettings(TRAINING_VEHICLES, BREACH_TRIP + 1, SEED)))
    with tempfile.TemporaryDirectory() as folder:
        bundle = train(training_settings(0.05), Path(folder), SEED, TRAINING_VEHICLES).bundle
        model, with_rates = VoltageModel(bundle), bundle.manifest
    manifest = _two_states(with_rates)
    earlier = [_trace(vehicle.trips[LAST_UPDATE_TRIP], manifest) for vehicle in fleet]
    breaches = [_trace(vehicle.trips[BREACH_TRIP], manifest) for vehicle in fleet]

    def cases(declared: Manifest) -> list[Case]:
        nominal, odometers = [prior(declared)] * len(earlier), [0.0] * len(earlier)
        updated = calibrate(nominal, earlier, odometers, model, declared, Settings())
        return [Case(b, u.estimate) for b, u in zip(breaches, updated, strict=True)]

    two, four = cases(manifest), cases(with_rates)
    ours, once = Settings(), Settings(passes=1)
    return _time(
        [
            ("ours", _ours(model, manifest, ours), two),
            ("ours, rates too", _ours(model, with_rates, ours), four),
            ("ours, 1 pass", _ours(model, manifest, once), two),
            ("filterpy UKF, 1 sweep", _filterpy(model, 1), two),
            (f"published, {SWEEPS} sweeps", _filterpy(model, SWEEPS), two),
        ],
        repeats,
    )


def _two_states(manifest: Manifest) -> Manifest:
    """The two parameters alone, as the published method has them."""
    parameters = [
        msgspec.structs.replace(p, rate_prior_std=0.0, process_noise=PROCESS_NOISE)
        for p in manifest.parameters
    ]
    return msgspec.structs.replace(manifest, parameters=parameters)


def _trace(trip: TripData, manifest: Manifest) -> TraceArrays:
    rows = feature_rows(trip, manifest)
    whole = TraceArrays(
        trip.time_s[rows.rows] - trip.time_s[0], rows.features, trip.voltage_v[rows.rows]
    )
    return thin(whole, POINTS)


def _ours(model: VoltageModel, manifest: Manifest, settings: Settings) -> Method:
    def run(case: Case) -> float:
        found = calibrate([case.start], [case.trace], [KM_SINCE], model, manifest, settings)
        return found[0].error_after_v

    return run


def _filterpy(model: VoltageModel, sweeps: int) -> Method:
    def run(case: Case) -> float:
        theta, _ = filterpy_update(case.start.theta, case.trace, model, sweeps)
        predicted = model.predict(case.trace.features, theta)
        return float(np.abs(predicted - case.trace.voltage_v).mean())

    return run


def _time(methods: Sequence[tuple[str, Method, Sequence[Case]]], repeats: int) -> list[Row]:
    """In turns, so that a processor that changes its pace does so for all of them."""
    taken: list[list[float]] = [[] for _ in methods]
    errors: list[list[float]] = [[] for _ in methods]
    for repeat in range(repeats + 1):
        for number, (_, method, cases) in enumerate(methods):
            for case in cases:
                started = time.perf_counter()
                error = method(case)
                if repeat:  # the first round warms up
                    taken[number].append(1000 * (time.perf_counter() - started))
                    errors[number].append(error)
    return [
        Row(
            name,
            statistics.median(taken[number]),
            float(np.quantile(taken[number], 0.9)),
            statistics.fmean(errors[number]),
        )
        for number, (name, _, _) in enumerate(methods)
    ]


def _print(rows: Sequence[Row]) -> None:
    table = Table(title=f"One recalibration: {POINTS} points, 2 parameters, one core")
    for heading in ("method", "median ms", "p90 ms", "ratio to ours", "error after (V)"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.median_ms:.3f}",
            f"{row.p90_ms:.3f}",
            f"{row.median_ms / rows[0].median_ms:.1f}",
            f"{row.error_after_v:.4f}",
        )
    Console().print(table)


if __name__ == "__main__":
    # One core for every method: BLAS threads would blur the comparison.
    if os.environ.get("OMP_NUM_THREADS") != "1":
        one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        os.execvpe(  # noqa: S606 - this very program
            sys.executable, [sys.executable, "-m", "bench.recalibration", *sys.argv[1:]], one_core
        )
    sys.exit(main())
