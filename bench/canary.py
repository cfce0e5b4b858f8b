"""How often a good revision is worse on the next trip than the one before it, and a bad one.

The loop without the wire on a simulated fleet: every revision is compared with the parameters that
it replaces on the trip after its breach, each aligned as the vehicle does. Bad ones are calibrated
on the same breaches with a voltage sensor that is off. The margin of
`edge_agent/parameters/canary.py` rests on what this prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.offline_loop import Trip, drive, of_trip, ours, trips_of
from common.calibration import Estimate, Settings
from common.calibrator import Case, MakeRevision, decide
from common.manifest import Manifest
from common.model import VoltageModel
from demo.simulated import train, training_settings, vehicles_of
from edge_agent.parameters.canary import is_worse
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 11
THRESHOLDS_V = (0.03, 0.05)
OFFSETS_V = (0.05, 0.1, 0.2, -0.05, -0.1, -0.2)
VEHICLES_AT_ONCE = 16
FOLLOWING = 5  # trips after the canary's own that say whether it was right


@dataclass(frozen=True)
class Compared:
    """A revision on its next trip: errors of the parameters before it and of its own, volts.

    `gain_v` is by how much its error was lower over the FOLLOWING trips.
    """

    before_v: float
    after_v: float
    gain_v: float


@dataclass(frozen=True)
class Row:
    """What a kind of revision did on the next trip, at one threshold."""

    threshold_v: float
    revisions: str
    count: int
    better: float
    fallen_back: int
    fallen_back_wrongly: int | None
    worst_v: float
    harmful: int
    harmful_caught: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.canary", description=__doc__)
    parser.add_argument("--vehicles", type=int, default=256)
    parser.add_argument("--trips", type=int, default=100)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for threshold_v in THRESHOLDS_V:
            for row in _rows(Path(folder), threshold_v, options.vehicles, options.trips):
                print(json.dumps(vars(row)))
    return 0


def _rows(folder: Path, threshold_v: float, vehicles: int, trips: int) -> Iterator[Row]:
    bundle = train(training_settings(threshold_v), folder / f"{threshold_v}", 1, 20).bundle
    model, manifest = VoltageModel(bundle), bundle.manifest
    good: list[Compared] = []
    bad: list[Compared] = []
    for start in range(0, vehicles, VEHICLES_AT_ONCE):
        fleet = simulate_fleet(FleetSettings(VEHICLES_AT_ONCE, trips, SEED + start))
        lives = [trips_of(vehicle, manifest) for vehicle in vehicles_of(fleet)]
        driven = drive(lives, model, ours("", model, manifest, Settings()))
        for life, found in zip(lives, driven, strict=True):
            for number in np.flatnonzero(found.updated[:-1]):
                before, after = found.estimates[number], found.estimates[number + 1]
                later = life[number + 1 : number + 2 + FOLLOWING]
                good.append(_compared(before, after, later, model, manifest))
                bad += _bad(before, life[number], later[:1], model, manifest)
    yield _row(threshold_v, "of a sound trip", good, manifest)
    yield _row(threshold_v, "of a sensor that is off", bad, manifest)


def _bad(
    before: Estimate, trip: Trip, later: Sequence[Trip], model: VoltageModel, manifest: Manifest
) -> Iterator[Compared]:
    """Revisions from the same breach, seen by a sensor that is off; those that would be sent."""
    traces = [replace(trip.trace, voltage_v=trip.trace.voltage_v + off) for off in OFFSETS_V]
    cases = [Case(trace, trip.odometer, before, before) for trace in traces]
    for made in decide(cases, model, manifest, Settings()):
        if isinstance(made, MakeRevision):
            after = made.calibrated.estimate
            yield _compared(before, after, later, model, manifest)


def _compared(
    before: Estimate,
    after: Estimate,
    later: Sequence[Trip],
    model: VoltageModel,
    manifest: Manifest,
) -> Compared:
    errors = np.array(
        [[_error_v(one, trip, model, manifest) for one in (before, after)] for trip in later]
    )
    gains = errors[1:, 0] - errors[1:, 1]
    gain_v = float(gains.mean()) if len(gains) else 0.0
    return Compared(float(errors[0, 0]), float(errors[0, 1]), gain_v)


def _error_v(estimate: Estimate, trip: Trip, model: VoltageModel, manifest: Manifest) -> float:
    there = of_trip(estimate, trip, model, manifest)
    predicted = model.predict(trip.whole.features, there.theta)
    return float(np.abs(predicted - trip.whole.voltage_v).mean())


def _row(threshold_v: float, name: str, found: Sequence[Compared], manifest: Manifest) -> Row:
    """Harmful: the trip would be a breach with it, and was none without."""
    worse = np.array([c.after_v - c.before_v for c in found])
    back = np.array([is_worse(c.before_v, c.after_v, manifest) for c in found])
    gains = np.array([c.gain_v for c in found])
    is_followed = bool(gains.any())
    harmful = np.array([c.after_v > threshold_v >= c.before_v for c in found])
    return Row(
        threshold_v=threshold_v,
        revisions=name,
        count=len(found),
        better=round(float((worse < 0).mean()), 4),
        fallen_back=int(back.sum()),
        fallen_back_wrongly=int((back & (gains > 0)).sum()) if is_followed else None,
        worst_v=round(float(worse.max()), 4),
        harmful=int(harmful.sum()),
        harmful_caught=int((harmful & back).sum()),
    )


if __name__ == "__main__":
    sys.exit(main())
