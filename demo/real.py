"""`python -m demo.real`: the same loop on measured data: cells from new to dead, a car through a winter.

The same agent, broker, service and filter as everywhere; only tables and manifests differ.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cloud.training.candidates import Overrides
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.table import TripChoice
from cloud.training.train import train_bundle
from common.manifest import MovingAverage
from demo.measured import MeasuredDataError, read_car, read_cells, write_table
from demo.results import RunResults
from demo.run import Narrator, exit_code, require_fresh, run_and_report
from demo.vehicles import VehicleData

CELLS, CAR = "calce_cs2", "bmw_i3"
WINTER_BELOW_C = 10.0
SERIES_CELLS = 96
CURRENTS = ("battery_current_a", "current_10s_a", "current_60s_a")

CELL_SETTINGS = TrainingSettings(
    features=("discharged_ah", "current_a"),
    target="voltage_v",
    name="calce-cs2",
    trips=TripChoice(8),
    hidden=(9,),
    noise_std_v=0.005,
    # The cells are cut off at 2.7 V; the state of health is read where the model still has slope.
    cutoff_voltage_v=3.0,
    odometer_unit="Ah",
    units={"discharged_ah": "Ah", "current_a": "A"},
    health_sweep="discharged_ah",
    choice=Choice(names=("gain:discharged_ah", "offset:output")),
    overrides=Overrides(
        prior_std={"gain:discharged_ah": 0.1, "offset:output": 0.05},
        process_noise={"gain:discharged_ah": 1e-4, "offset:output": 2.5e-5},
    ),
)

CAR_PARAMETERS = (*(f"gain:{name}" for name in CURRENTS), "offset:output")
CAR_SETTINGS = TrainingSettings(
    features=(*CURRENTS, "soc_percent"),
    target="battery_voltage_v",
    name="bmw-i3",
    trips=TripChoice(10),
    moving_averages={
        "current_10s_a": MovingAverage(signal="battery_current_a", time_constant_s=10.0),
        "current_60s_a": MovingAverage(signal="battery_current_a", time_constant_s=60.0),
    },
    hidden=(8,),
    noise_std_v=0.5,
    error_threshold_v=0.96,  # 10 mV a cell
    cutoff_voltage_v=288.0,  # 3.0 V a cell
    units={**dict.fromkeys(CURRENTS, "A"), "soc_percent": "%"},
    ranges={
        **dict.fromkeys(CURRENTS, (-600.0, 300.0)),
        "soc_percent": (0.0, 100.0),
        "battery_voltage_v": (192.0, 430.0),
    },
    choice=Choice(names=CAR_PARAMETERS),
    overrides=Overrides(
        prior_std={**dict.fromkeys(CAR_PARAMETERS[:3], 0.3), "offset:output": 5.0},
        process_noise={**dict.fromkeys(CAR_PARAMETERS[:3], 1e-4), "offset:output": 2.5e-2},
        bounds=dict.fromkeys(CAR_PARAMETERS[:3], (0.1, 10.0)),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    narrator = Narrator()
    present = [name for name in (CELLS, CAR) if (options.data / name).is_dir()]
    if not present:
        raise MeasuredDataError(options.data, f"it has neither {CELLS}/ nor {CAR}/")
    for name in present:
        require_fresh(options.out / name)
        (_cells if name == CELLS else _car)(options.data / name, options.out / name, narrator)
    return 0


def _cells(data: Path, out: Path, narrator: Narrator) -> None:
    vehicles = read_cells(data)
    narrator.say(f"{CELLS}: {len(vehicles)} cells from new to dead")
    _train_and_run(
        vehicles,
        CELL_SETTINGS,
        out,
        narrator,
        title="Living twins of measured cells",
        subtitle="Three cells cycled from new to dead; a cycle is a trip, throughput the odometer.",
        source="CALCE, University of Maryland, CS2 cells; see demo/data/calce_cs2/README.md.",
        winter=None,
    )


def _car(data: Path, out: Path, narrator: Narrator) -> None:
    vehicle, ambient = read_car(data)
    narrator.say(f"{CAR}: {len(vehicle.trips)} trips of one car")
    # Those that trained the model teach nothing about drift.
    replayed = VehicleData(vehicle.vehicle_id, vehicle.trips[10:])
    winter = {trip_id for trip_id, celsius in ambient.items() if celsius < WINTER_BELOW_C}
    _train_and_run(
        [vehicle],
        CAR_SETTINGS,
        out,
        narrator,
        title="The living twin of a measured car",
        subtitle="One BMW i3: trained on the first ten summer trips, driven through the winter.",
        source="Steinstraeter, Buberger, Trifonov, doi 10.21227/6jr9-5235; demo/data/bmw_i3.",
        winter=winter,
        replayed=[replayed],
    )


def _train_and_run(
    vehicles: list[VehicleData],
    settings: TrainingSettings,
    out: Path,
    narrator: Narrator,
    *,
    title: str,
    subtitle: str,
    source: str,
    winter: set[str] | None,
    replayed: list[VehicleData] | None = None,
) -> None:
    table = out / "data" / "trips.csv"
    write_table(vehicles, table, settings.target)
    report = train_bundle(settings, table, out / "bundle", datetime.now(UTC).date())
    narrator.say(f"held-out error {report.held_out.rmse_v:.4f} V (RMSE)")
    run_and_report(
        replayed or vehicles,
        report.bundle,
        out,
        title=title,
        subtitle=subtitle,
        sources=[source],
        keep_running=False,
        narrator=narrator,
        extra=lambda results: _winter(results, winter) if winter else {},
    )


def _winter(results: RunResults, winter: set[str]) -> dict[str, str]:
    rows = [trip for trip in results.trips if trip.trip_id in winter]
    if not rows:
        return {}
    frozen = float(np.mean([trip.error_frozen_v for trip in rows]))
    living = float(np.mean([trip.error_v for trip in rows]))
    return {
        "winter trips (below 10 °C)": f"{len(rows)}",
        "winter error without updates, a cell": f"{1000 * frozen / SERIES_CELLS:.1f} mV",
        "winter error with updates, a cell": f"{1000 * living / SERIES_CELLS:.1f} mV",
        "winter error, with / without": f"{living / frozen:.2f}",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.real",
        description="The loop on measured data: frozen model against living twin.",
        epilog='example: make demo-real ARGS="--data my-data --out runs/mine"',
    )
    default = Path(__file__).parent / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of measured data")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-real"), help="results")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
