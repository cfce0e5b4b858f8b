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
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter
from rich.console import Console
from rich.table import Table

from cloud.training.candidates import Overrides
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from common.calibration import Estimate, Settings, calibrate, mean_absolute_error, prior
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import TraceArrays
from edge_agent.thinning import thin
from firmware_sim.fleet_files import FileFormat, write_fleet
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

FEATURES = ("distance_km", "average_speed_m_s", "load_kg")
PARAMETERS = ("gain:distance_km", "gain:output")
POINTS = 50
SWEEPS = 40
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
    fleet = simulate_fleet(FleetSettings(20, BREACH_TRIP + 1, SEED))
    with tempfile.TemporaryDirectory() as folder:
        write_fleet(
            simulate_fleet(FleetSettings(20, 1, SEED)), Path(folder) / "data", FileFormat.PARQUET
        )
        settings = TrainingSettings(
            features=FEATURES,
            target="voltage_v",
            name="bench",
            cutoff_voltage_v=2.05,
            overrides=Overrides(process_noise=dict.fromkeys(PARAMETERS, PROCESS_NOISE)),
            choice=Choice(names=PARAMETERS),
        )
        table = Path(folder) / "data" / "discharge_curves.parquet"
        bundle = train_bundle(settings, table, Path(folder) / "bundle", date(2026, 1, 1)).bundle
        model, manifest = VoltageModel(bundle), bundle.manifest
    vehicles = range(len(fleet.vehicle_ids))
    earlier = [_trace(fleet, vehicle, LAST_UPDATE_TRIP) for vehicle in vehicles]
    nominal = [prior(manifest) for _ in vehicles]
    updated = calibrate(nominal, earlier, [0.0] * len(earlier), model, manifest, Settings())
    cases = [
        Case(_trace(fleet, vehicle, BREACH_TRIP), updated[vehicle].estimate) for vehicle in vehicles
    ]
    return [
        _time("ours, as shipped (4 passes)", _ours(model, manifest, Settings()), cases, repeats),
        _time("ours, 1 pass", _ours(model, manifest, Settings(passes=1)), cases, repeats),
        _time("filterpy UKF, 1 sweep", _filterpy(model, manifest, 1), cases, repeats),
        _time(
            f"published: filterpy UKF, {SWEEPS} sweeps",
            _filterpy(model, manifest, SWEEPS),
            cases,
            max(repeats // 5, 1),
        ),
    ]


def _trace(fleet: FleetData, vehicle: int, trip_number: int) -> TraceArrays:
    count = fleet.samples.distance_km.shape[2]
    features = np.column_stack(
        [
            fleet.samples.distance_km[vehicle, trip_number],
            np.full(count, fleet.trips.average_speed_m_s[vehicle, trip_number]),
            np.full(count, fleet.trips.load_kg[vehicle, trip_number]),
        ]
    )
    trip = TraceArrays(
        fleet.samples.time_s[vehicle, trip_number],
        features,
        fleet.samples.voltage_v[vehicle, trip_number],
    )
    return thin(trip, POINTS)


def _ours(model: VoltageModel, manifest: Manifest, settings: Settings) -> Method:
    def run(case: Case) -> float:
        found = calibrate([case.start], [case.trace], [KM_SINCE], model, manifest, settings)
        return found[0].error_after_v

    return run


def _filterpy(model: VoltageModel, manifest: Manifest, sweeps: int) -> Method:
    count = len(manifest.parameters)

    def run(case: Case) -> float:
        trace = case.trace
        points = len(trace.time_s)
        sigma = MerweScaledSigmaPoints(count, alpha=1.0, beta=2.0, kappa=0.0)
        ukf: Any = UnscentedKalmanFilter(
            count, points, 1.0, lambda x: model.predict(trace.features, x), lambda x, _dt: x, sigma
        )
        ukf.x = case.start.theta.copy()
        ukf.P, ukf.Q, ukf.R = np.eye(count) * 1e-4, np.eye(count) * 1e-4, np.eye(points) * 1e-4
        for _ in range(sweeps):
            ukf.predict()
            ukf.update(trace.voltage_v)
        return mean_absolute_error(ukf.x, trace, model)

    return run


def _time(name: str, method: Method, cases: Sequence[Case], repeats: int) -> Row:
    method(cases[0])
    taken, errors = [], []
    for _ in range(repeats):
        for case in cases:
            started = time.perf_counter()
            errors.append(method(case))
            taken.append(1000 * (time.perf_counter() - started))
    return Row(
        name, statistics.median(taken), float(np.quantile(taken, 0.9)), statistics.fmean(errors)
    )


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
