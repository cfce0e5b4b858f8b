"""`python -m demo.real`: the loop on measured data: cells from new to dead, a car in winter.

The same agent, broker, service and filter as everywhere; only tables and manifests differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cloud.training.candidates import Overrides
from cloud.training.selection import Choice
from cloud.training.settings import TrainingSettings
from cloud.training.table import TripChoice
from cloud.training.train import train_bundle
from common.bundle import Bundle
from common.manifest import MovingAverage
from demo.measured import MeasuredDataError, read_car, read_cells, write_table
from demo.results import TripRow
from demo.run import (
    ExtraFigure,
    Narrator,
    Story,
    exit_code,
    require_fresh,
    run_and_report,
)
from demo.vehicles import VehicleData

CELLS, CAR = "calce_cs2", "bmw_i3"
WINTER_BELOW_C = 10.0
SERIES_CELLS = 96
CURRENTS = ("battery_current_a", "current_20s_a", "current_200s_a")

# Capacity, and two for the resistance; a discharge that does not begin at a full charge is offset
# for that cycle alone: its offset varies from trip to trip and hardly at all along the life.
CAPACITY = "gain:discharged_ah"
CELL_PARAMETERS = (CAPACITY, "offset:discharged_ah", "gain:output", "offset:output")
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
    choice=Choice(names=CELL_PARAMETERS),
    overrides=Overrides(
        prior_std=dict(zip(CELL_PARAMETERS, (0.1, 0.005, 0.02, 0.05), strict=True)),
        process_noise=dict(zip(CELL_PARAMETERS, (1e-3, 0.0, 1e-4, 3e-4), strict=True)),
        rate_prior_std={CAPACITY: 1e-3},
        rate_process_noise={CAPACITY: 3e-8},
        trip_std=dict(zip(CELL_PARAMETERS, (0.01, 0.06, 0.003, 0.01), strict=True)),
        # An automotive cell is dead at a gain of 1.25; these are cycled to a tenth of it, and the
        # more they resist the more their voltage is stretched: gain and offset move far, together.
        bounds={CAPACITY: (0.2, 25.0), "offset:output": (-4.0, 4.0)},
    ),
)

# Cold raises every part of the resistance alike: one gain on what the current and its history do.
RESISTANCE = "response:" + "+".join(CURRENTS)
CAR_TRAINING_TRIPS = 10
CAR_SETTINGS = TrainingSettings(
    features=(*CURRENTS, "soc_percent"),
    target="battery_voltage_v",
    name="bmw-i3",
    trips=TripChoice(CAR_TRAINING_TRIPS),
    moving_averages={
        "current_20s_a": MovingAverage(signal="battery_current_a", time_constant_s=20.0),
        "current_200s_a": MovingAverage(signal="battery_current_a", time_constant_s=200.0),
    },
    # More units follow the ten trips and not the battery: on other summer trips they err more.
    hidden=(4,),
    noise_std_v=0.5,
    error_threshold_v=0.96,  # 10 mV a cell
    cutoff_voltage_v=288.0,  # 3.0 V a cell
    units={**dict.fromkeys(CURRENTS, "A"), "soc_percent": "%"},
    ranges={
        **dict.fromkeys(CURRENTS, (-600.0, 300.0)),
        "soc_percent": (0.0, 100.0),
        "battery_voltage_v": (192.0, 430.0),
    },
    choice=Choice(names=(RESISTANCE, "offset:output")),
    overrides=Overrides(
        prior_std={RESISTANCE: 0.3, "offset:output": 1.0},
        process_noise={RESISTANCE: 1e-3, "offset:output": 1e-3},
        # The weather of a day, and the state of charge that the car counts.
        trip_std={RESISTANCE: 0.2, "offset:output": 1.0},
        bounds={RESISTANCE: (0.1, 10.0)},
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
        (_cells if name == CELLS else _car)(options.data / name, options.out / name, narrator)
    return 0


def _cells(data: Path, out: Path, narrator: Narrator) -> None:
    cells = read_cells(data)
    require_fresh(out)
    narrator.say(f"{CELLS}: {len(cells)} cell(s) from new to dead")
    bundle = _train(cells, CELL_SETTINGS, out, narrator)
    run_and_report(
        cells,
        bundle,
        out,
        Story(
            title="Living twins of measured cells",
            subtitle=(
                f"{len(cells)} cell(s) cycled from new to dead; a cycle is a trip, throughput the "
                "odometer."
            ),
            sources=("CALCE, University of Maryland, CS2 cells: demo/data/calce_cs2/README.md.",),
        ),
        narrator,
    )


def _car(data: Path, out: Path, narrator: Narrator) -> None:
    car, ambient_c = read_car(data)
    require_fresh(out)
    narrator.say(f"{CAR}: {len(car.trips)} trips of one car")
    bundle = _train([car], CAR_SETTINGS, out, narrator)
    narrator.say("(the held-out trips may hold the only one below 60 % charge: docs/results.md)")
    # Those that trained the model teach nothing about drift.
    replayed = VehicleData(car.vehicle_id, car.trips[CAR_TRAINING_TRIPS:])
    winter = frozenset(name for name, celsius in ambient_c.items() if celsius < WINTER_BELOW_C)
    run_and_report(
        [replayed],
        bundle,
        out,
        Story(
            title="The living twin of a measured car",
            subtitle=(
                f"One BMW i3: trained on the first {CAR_TRAINING_TRIPS} summer trips, driven "
                "through the winter."
            ),
            sources=(
                "Steinstraeter, Buberger, Trifonov, doi 10.21227/6jr9-5235: demo/data/bmw_i3.",
            ),
            figures_of=lambda trips: _winter([trip for trip in trips if trip.trip_id in winter]),
        ),
        narrator,
    )


def _train(
    vehicles: list[VehicleData], settings: TrainingSettings, out: Path, narrator: Narrator
) -> Bundle:
    table = out / "data" / "trips.csv"
    write_table(vehicles, table, settings.target)
    report = train_bundle(settings, table, out / "bundle", datetime.now(UTC).date())
    narrator.say(
        f"held-out error {report.held_out.rmse_v:.4f} V (RMSE); parameters: "
        f"{', '.join(report.bundle.manifest.parameter_names)}"
    )
    return report.bundle


def _winter(trips: Sequence[TripRow]) -> Sequence[ExtraFigure]:
    """Per cell, in millivolts; nothing when no trip was cold."""
    if not trips:
        return ()
    frozen = 1000 * float(np.mean([trip.error_frozen_v for trip in trips])) / SERIES_CELLS
    living = 1000 * float(np.mean([trip.error_v for trip in trips])) / SERIES_CELLS
    label = f"below {WINTER_BELOW_C:g} °C"
    return (
        ExtraFigure("winter_trips", len(trips), f"trips {label}", f"{len(trips)}"),
        ExtraFigure(
            "winter_error_frozen_mv_per_cell",
            frozen,
            f"error without updates {label}, a cell",
            f"{frozen:.1f} mV",
        ),
        ExtraFigure(
            "winter_error_mv_per_cell",
            living,
            f"error with updates {label}, a cell",
            f"{living:.1f} mV",
        ),
        ExtraFigure(
            "winter_error_ratio",
            living / frozen,
            f"error with / without updates {label}",
            f"{living / frozen:.2f}",
        ),
    )


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
