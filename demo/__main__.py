"""`python -m demo`: a simulated fleet ages and its twins follow, over a real broker, end to end.

Simulate, train, select, run the loop, report. Must never let the simulator's truth reach the edge
or the cloud.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cloud.training.candidates import Overrides
from cloud.training.settings import TrainingSettings
from cloud.training.train import TrainingReport, train_bundle
from demo.run import Narrator, Story, require_fresh, run_and_report
from demo.vehicles import TripData, VehicleData
from firmware_sim.battery import usable_energy_wh
from firmware_sim.fleet_files import FileFormat, write_fleet
from firmware_sim.published_fleet import FleetData, FleetSettings, simulate_fleet

FEATURES = ("distance_km", "average_speed_m_s", "load_kg")
GAINS = ("gain:distance_km", "gain:output")
# A fleet smaller than this learns from the first trips of further vehicles of the same kind.
TRAINING_VEHICLES = 20
# A margin above the end of the new curve, 2.0 V: below it the model has seen nothing.
CUT_OFF_V = 2.05
# Chosen on fleets of other seeds than the demonstration's (docs/decisions.md).
RATE_PRIOR_STD = 1e-5
PROCESS_NOISE = 1e-9
RATE_PROCESS_NOISE = 1e-12


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    narrator = Narrator()
    out: Path = options.out
    require_fresh(out)
    narrator.say(f"simulating {options.vehicles} vehicles x {options.trips} trips")
    fleet = simulate_fleet(FleetSettings(options.vehicles, options.trips, options.seed))
    write_fleet(fleet, out / "data", FileFormat.PARQUET)
    first_trips = FleetSettings(max(options.vehicles, TRAINING_VEHICLES), 1, options.seed)
    write_fleet(simulate_fleet(first_trips), out / "first-trips", FileFormat.PARQUET)
    narrator.say("training the model on each vehicle's first trip, ranking its parameters")
    report = _train(out, options.threshold)
    narrator.say(
        f"held-out error {report.held_out.rmse_v:.4f} V (RMSE); parameters: "
        f"{', '.join(report.bundle.manifest.parameter_names)}"
    )
    run_and_report(
        vehicles_of(fleet),
        report.bundle,
        out,
        _story(options),
        narrator,
        keep_running=options.keep_running,
    )
    return 0


def _story(options: argparse.Namespace) -> Story:
    return Story(
        title="Living twins of a simulated fleet",
        subtitle=(
            f"{options.vehicles} vehicles, {options.trips} trips each, seed {options.seed}: "
            "batteries age, a model trained on new ones drifts, the living twin follows."
        ),
        sources=(
            "Trips and batteries: firmware_sim, after aws-samples/aws-do-pm (MIT-0), simulated.",
        ),
    )


def vehicles_of(fleet: FleetData) -> list[VehicleData]:
    """The fleet as the vehicles see it, with the truth beside it for the report alone."""
    return [
        VehicleData(
            vehicle_id,
            [_trip(fleet, v, t) for t in range(len(fleet.trip_ids))],
            dict(zip(fleet.trip_ids, _true_health(fleet, v), strict=True)),
        )
        for v, vehicle_id in enumerate(fleet.vehicle_ids)
    ]


def _true_health(fleet: FleetData, v: int) -> list[float]:
    usable_wh = usable_energy_wh(fleet.truth.degradation[v], CUT_OFF_V)
    health: list[float] = (usable_wh / usable_energy_wh(0.0, CUT_OFF_V)).tolist()
    return health


def _trip(fleet: FleetData, v: int, t: int) -> TripData:
    distance_km = fleet.samples.distance_km[v, t]
    return TripData(
        trip_id=fleet.trip_ids[t],
        time_s=fleet.trips.started_at_s[v, t] + fleet.samples.time_s[v, t],
        odometer=fleet.trips.odometer_start_km[v, t] + distance_km,
        signals={
            "distance_km": distance_km,
            "average_speed_m_s": np.full_like(distance_km, fleet.trips.average_speed_m_s[v, t]),
            "load_kg": np.full_like(distance_km, fleet.trips.load_kg[v, t]),
        },
        voltage_v=fleet.samples.voltage_v[v, t],
    )


def _train(out: Path, threshold_v: float) -> TrainingReport:
    settings = TrainingSettings(
        features=FEATURES,
        target="voltage_v",
        name="published-fleet",
        error_threshold_v=threshold_v,
        cutoff_voltage_v=CUT_OFF_V,
        units={"distance_km": "km", "average_speed_m_s": "m/s", "load_kg": "kg"},
        health_sweep="distance_km",
        overrides=Overrides(
            rate_prior_std=dict.fromkeys(GAINS, RATE_PRIOR_STD),
            process_noise=dict.fromkeys(GAINS, PROCESS_NOISE),
            rate_process_noise=dict.fromkeys(GAINS, RATE_PROCESS_NOISE),
        ),
    )
    table = out / "first-trips" / "discharge_curves.parquet"
    return train_bundle(settings, table, out / "bundle", datetime.now(UTC).date())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="A simulated fleet, end to end: predict, measure, recalibrate.",
        epilog='example: make demo ARGS="--vehicles 5 --trips 40 --seed 3 --threshold 0.03"',
    )
    parser.add_argument("--vehicles", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--trips", type=int, default=100, help="trips of each (default 100)")
    parser.add_argument("--seed", type=int, default=2026, help="of the simulation (default 2026)")
    parser.add_argument("--threshold", type=float, default=0.05, help="volts (default 0.05)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where results go")
    parser.add_argument(
        "--keep-running", action="store_true", help="leave broker, service and API up at the end"
    )
    return parser


if __name__ == "__main__":
    from demo.run import exit_code

    sys.exit(exit_code(main))
