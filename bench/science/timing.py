"""Time of a recalibration: ours in batches, filterpy, and the published settings, in turns.

One thread, the same .tflite behind all, breach traces of one simulated fleet, the median of what
each took. Must never assert a time, nor run beside other work of this program.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.filterpy_ukf import SWEEPS, filterpy_update
from bench.offline_loop import Trip, trips_of
from bench.science.fleet import Fleet, make_fleet
from bench.science.methods.common_ground import without_rates
from bench.science.one_thread import one_thread
from bench.science.plan import Plan
from bench.science.spread import Figures
from common.bundle_filter import BundleFilter
from common.calibration import Estimate, Settings, calibrate, prior
from common.estimate import pack
from common.manifest import Manifest
from common.trace import TraceArrays
from demo.simulated import vehicles_of
from demo.vehicles import VehicleData
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 41
BATCHES = (1, 16, 256)
LAST_UPDATE_TRIP, BREACH_TRIP = 24, 29
TWO_STATES_NOISE = 1e-8  # variance per km: without a rate the parameters themselves must drift
SINGLES = 16  # cases of what runs one vehicle at a time


@dataclass(frozen=True)
class Contender:
    """One method: a call that recalibrates `batch` vehicles."""

    name: str
    batch: int
    run: Callable[[], object]


def timing_figures(plan: Plan) -> Figures:
    """Milliseconds a recalibration, recalibrations per second and core, and ratios."""
    with one_thread():
        taken = in_turns(_contenders(plan), plan.timing_repeats)
    each_ms = {name: statistics.median(times) for name, times in taken.items()}
    figures: Figures = {f"timing/{name}/ms": ms for name, ms in each_ms.items()}
    figures.update(
        {f"timing/{name}/per_s": 1000.0 / ms for name, ms in each_ms.items() if "batch" in name}
    )
    largest = f"2 states, batch {BATCHES[-1]}"
    figures["timing/published_over_ours"] = each_ms["published settings"] / each_ms[largest]
    one_update = f"one update, {largest}"
    figures["timing/published_over_update"] = each_ms["published settings"] / each_ms[one_update]
    figures["timing/published_over_ours_alone"] = (
        each_ms["published settings"] / each_ms["2 states, batch 1"]
    )
    return figures


def in_turns(contenders: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Milliseconds a vehicle of every round but the first, which warms up."""
    taken: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats + 1):
        for contender in contenders:
            started = time.perf_counter()
            contender.run()
            spent_ms = 1000.0 * (time.perf_counter() - started)
            if repeat:
                taken[contender.name].append(spent_ms / contender.batch)
    return taken


def _contenders(plan: Plan) -> list[Contender]:
    fleet = make_fleet(SEED, 1, 0, 1, plan.teachers)
    settings = FleetSettings(plan.timing_vehicles, BREACH_TRIP + 1, SEED)
    vehicles = [
        trips_of(_of_two_trips(vehicle), fleet.manifest)
        for vehicle in vehicles_of(simulate_fleet(settings))
    ]
    found = []
    manifests = {"2 states": without_rates(fleet.manifest, TWO_STATES_NOISE)}
    manifests["4 states"] = fleet.manifest
    for label, manifest in manifests.items():
        starts = _starts(vehicles, fleet, manifest)
        found.append(_update(label, starts, vehicles, fleet, manifest))
        found += [
            _ours(f"{label}, batch {batch}", batch, starts, vehicles, fleet, manifest)
            for batch in BATCHES
        ]
    starts = _starts(vehicles, fleet, manifests["2 states"])[:SINGLES]
    traces = [trips[1].trace for trips in vehicles[:SINGLES]]
    found += [
        _filterpy("filterpy UKF, 1 sweep", starts, traces, fleet, 1),
        _filterpy("published settings", starts, traces, fleet, SWEEPS),
    ]
    return found


def _of_two_trips(vehicle: VehicleData) -> VehicleData:
    trips = [vehicle.trips[LAST_UPDATE_TRIP], vehicle.trips[BREACH_TRIP]]
    return VehicleData(vehicle.vehicle_id, trips)


def _starts(vehicles: Sequence[Sequence[Trip]], fleet: Fleet, manifest: Manifest) -> list[Estimate]:
    """Each vehicle's estimate after an update a few trips before its breach."""
    nominal = [prior(manifest)] * len(vehicles)
    traces = [trips[0].trace for trips in vehicles]
    odometers = [trips[0].odometer for trips in vehicles]
    updated = calibrate(nominal, traces, odometers, fleet.model, manifest, Settings())
    return [found.estimate for found in updated]


def _ours(
    name: str,
    batch: int,
    starts: Sequence[Estimate],
    vehicles: Sequence[Sequence[Trip]],
    fleet: Fleet,
    manifest: Manifest,
) -> Contender:
    """`batch` vehicles in one call; a small batch goes over several, so that all are alike."""
    calls = 1 if batch >= SINGLES else SINGLES // batch
    chosen = np.arange(batch * calls).reshape(calls, batch) % len(vehicles)

    def run() -> None:
        for members in chosen.tolist():
            calibrate(
                [starts[i] for i in members],
                [vehicles[i][1].trace for i in members],
                [vehicles[i][1].odometer for i in members],
                fleet.model,
                manifest,
                Settings(),
            )

    return Contender(name, batch * calls, run)


def _update(
    label: str,
    starts: Sequence[Estimate],
    vehicles: Sequence[Sequence[Trip]],
    fleet: Fleet,
    manifest: Manifest,
) -> Contender:
    """One unscented update of the largest batch: what filterpy does in one sweep, no verdict."""
    batch = BATCHES[-1]
    lengths = [len(trips[1].trace.time_s) for trips in vehicles]
    alike = [i for i, length in enumerate(lengths) if length == max(lengths)]
    chosen = [alike[i % len(alike)] for i in range(batch)]
    filter_ = BundleFilter(fleet.model, manifest, Settings(passes=1))
    x, P = pack([starts[i] for i in chosen], manifest)
    traces = [vehicles[i][1].trace for i in chosen]
    discrepancies = np.full(batch, manifest.model_discrepancy_std_v)

    def run() -> None:
        filter_.unscented(filter_.prior(x, P), filter_.evidence(traces, discrepancies))

    return Contender(f"one update, {label}, batch {batch}", batch, run)


def _filterpy(
    name: str,
    starts: Sequence[Estimate],
    traces: Sequence[TraceArrays],
    fleet: Fleet,
    sweeps: int,
) -> Contender:
    def run() -> None:
        for start, trace in zip(starts, traces, strict=True):
            filterpy_update(start.theta, trace, fleet.model, sweeps)

    return Contender(name, len(starts), run)
