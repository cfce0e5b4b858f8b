"""What the fleet's prior is worth: vehicles with and without it, on the loop without the wire.

Learned on a fleet that drove without one, measured on vehicles of another seed.
docs/decisions.md takes its numbers from here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.choices import THRESHOLD_V, Row, Variant, drive, row_of, show
from common.fleet_learning import History, learn
from common.model import VoltageModel
from demo.simulated import train, training_settings, vehicles_of
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED: Final = 1
LATER_SEED: Final = 3
VEHICLES, LATER_VEHICLES, TRIPS = 20, 8, 100
FEW: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet_prior", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three vehicles, then one")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (FEW, 1) if options.quick else (VEHICLES, LATER_VEHICLES)
        rows = list(_measure(Path(folder), *sizes))
    if options.json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        show(rows)
    return 0


def _measure(folder: Path, vehicles: int, later_vehicles: int) -> Iterator[Row]:
    bundle = train(training_settings(THRESHOLD_V), folder / "fleet", SEED, VEHICLES).bundle
    manifest, model = bundle.manifest, VoltageModel(bundle)
    shipped = Variant("as shipped", manifest, manifest)
    first = vehicles_of(simulate_fleet(FleetSettings(vehicles, TRIPS, SEED)))
    later = vehicles_of(simulate_fleet(FleetSettings(later_vehicles, TRIPS, LATER_SEED)))
    known = [drive(vehicle, model, shipped) for vehicle in first]
    yield row_of("first fleet", "without a fleet prior", known)
    without = [drive(vehicle, model, shipped) for vehicle in later]
    yield row_of("later vehicles", "without a fleet prior", without)
    for size in dict.fromkeys((vehicles, FEW)):
        histories = [History(found.updates, is_from_new=True) for found in known[:size]]
        prior = learn(histories, manifest, bundle=bundle.sha256, version=1, made_at=0.0)
        driven = [drive(vehicle, model, shipped, prior) for vehicle in later]
        yield row_of("later vehicles", f"with the prior of {size} vehicles", driven)


if __name__ == "__main__":
    sys.exit(main())
