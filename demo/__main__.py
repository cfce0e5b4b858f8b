"""`python -m demo`: a simulated fleet ages and its twins follow, over a real broker, end to end.

Simulate, train, select, run the loop, report. Must never let the simulator's truth reach the edge
or the cloud.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.run import Narrator, Story, exit_code, require_fresh, run_and_report
from demo.simulated import train, training_settings, vehicles_of
from firmware_sim.fleet_files import FileFormat, write_fleet
from firmware_sim.published_fleet import FleetSettings, simulate_fleet


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    narrator = Narrator()
    out: Path = options.out
    settings = training_settings(options.threshold)
    narrator.say(f"simulating {options.vehicles} vehicles x {options.trips} trips")
    fleet = simulate_fleet(FleetSettings(options.vehicles, options.trips, options.seed))
    require_fresh(out)  # only now: an option that makes no sense must not cost an earlier result
    write_fleet(fleet, out / "data", FileFormat.PARQUET)
    narrator.say("training the model on each vehicle's first trip, ranking its parameters")
    report = train(settings, out, options.seed, options.vehicles)
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
    sys.exit(exit_code(main))
