"""The measured cells, new to dead, leaving one out.

Nothing is learned or tuned on the cell that is reported: the bundle is trained on the first cycles
of the other two cells, and every grid is tried on them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from bench.offline_loop import Driven, Method, Trip, drive, of_trip, ours, trips_of
from bench.science.fleet import END_OF_LIFE, TRAINED_ON, crossing
from bench.science.forecast import crossing_forecast, health_at
from bench.science.merit import (
    LEVELS,
    error_figures,
    inside_band,
    loop_figures,
    mean_error_v,
)
from bench.science.methods.catalogue import OURS, tuned_methods
from bench.science.one_thread import one_thread
from bench.science.plan import Plan
from bench.science.spread import Figures, under
from bench.science.tuning import Trials, best_of, try_grids
from cloud.training.train import train_bundle
from common.calibration import Settings, extrapolate, voltage_band
from common.manifest import Manifest
from common.model import VoltageModel
from demo.measured import read_cells, write_table
from demo.real import CELL_SETTINGS, CELLS
from demo.vehicles import VehicleData

FloatArray = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parents[2] / "demo" / "data"
# Of the gain in charge, per Ah: a cell is at 80 % (a gain of 1.25) after 250 Ah at the earliest.
RATE_PRIOR_STD = 1e-3
# New cells are alike, and what they lose from cycle to cycle is ageing: the noise that lets the
# shipped filter follow a dying cell would hide the rate that a forecast needs.
NEW_STD, AGEING_NOISE = 0.02, 1e-5
# Of the rate's noise that ships: how freely the ageing may change its pace.
NOISE_FACTORS = (1.0, 0.1, 10.0, 0.0)
MEDIAN_OVER = 9  # cycles: a capacity is measured with outliers
SHIPPED = "ours as shipped"
TUNED = "ours, rate noise tuned"
WITH_RATE = OURS
HALF = 0.5


@dataclass(frozen=True)
class CellResult:
    """One cell that nothing was learned from."""

    name: str
    figures: Figures
    trials: Trials
    chosen: Mapping[str, str]
    curves: dict[str, list[float]]


def leave_out(number: int, plan: Plan) -> CellResult:
    """Train and tune on the other cells, report this one."""
    with one_thread():
        cells = read_cells(DATA / CELLS)
        left_out, others = cells[number], cells[:number] + cells[number + 1 :]
        model, manifest = _train(others)
        return _report(left_out, others, model, manifest, plan)


def _train(cells: Sequence[VehicleData]) -> tuple[VoltageModel, Manifest]:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "cells.csv"
        first = [replace(cell, trips=cell.trips[: CELL_SETTINGS.trips.count]) for cell in cells]
        write_table(first, table, CELL_SETTINGS.target)
        bundle = train_bundle(CELL_SETTINGS, table, Path(folder) / "bundle", TRAINED_ON).bundle
    return VoltageModel(bundle), bundle.manifest


def _every_so_many(cell: VehicleData, manifest: Manifest, stride: int) -> list[Trip]:
    return trips_of(replace(cell, trips=cell.trips[::stride]), manifest)


def _report(
    cell: VehicleData,
    others: Sequence[VehicleData],
    model: VoltageModel,
    manifest: Manifest,
    plan: Plan,
) -> CellResult:
    rated = _with_rates(manifest)
    sparse = [_every_so_many(other, manifest, plan.tuning_stride) for other in others]
    trials = dict(try_grids(sparse, model, rated, plan.values_each))
    chosen = best_of(trials)
    # A rate is learned from update to update: on every sixth cycle it would be another's.
    whole = [_every_so_many(other, manifest, plan.cycle_stride) for other in others]
    factor = _best_factor(whole, model, manifest, plan)
    trips = _every_so_many(cell, manifest, plan.cycle_stride)
    methods: dict[str, Method[object]] = {
        name: make(model, rated) for name, make in tuned_methods(chosen).items()
    }
    shipped = ours(SHIPPED, model, manifest, Settings())
    scaled = _scaled_rate_noise(manifest, factor)
    tuned = ours(TUNED, model, scaled, Settings())
    driven = {name: drive([trips], model, method)[0] for name, method in methods.items()}
    driven |= {method.name: drive([trips], model, method)[0] for method in (shipped, tuned)}
    figures: Figures = {}
    for name, life in driven.items():
        loop = loop_figures([life], manifest.error_threshold_v)
        del loop["unseen_per_1000"]  # a measured cell has no voltage without noise
        figures.update(under(name, loop))
    figures.update(_claims(driven[TUNED], trips, cell, model, scaled))
    figures.update(_forecast(driven[WITH_RATE], trips, cell, model, rated))
    labels = {**chosen, TUNED: f"rate noise × {factor:g}"}
    curves = _curves(driven, trips, cell, model, scaled)
    return CellResult(cell.vehicle_id, under("cells", figures), trials, labels, curves)


def _with_rates(manifest: Manifest) -> Manifest:
    ageing = {
        "rate_prior_std": RATE_PRIOR_STD,
        "prior_std": NEW_STD,
        "process_noise": AGEING_NOISE,
        "rate_process_noise": 0.0,
    }
    capacity = CELL_SETTINGS.choice.names[0]
    parameters = [
        msgspec.structs.replace(p, **ageing) if p.name == capacity else p
        for p in manifest.parameters
    ]
    return msgspec.structs.replace(manifest, parameters=parameters)


def _best_factor(
    others: Sequence[Sequence[Trip]], model: VoltageModel, manifest: Manifest, plan: Plan
) -> float:
    """The factor on the rate noise that ships with the lowest error on the other cells."""

    def error_v(factor: float) -> float:
        method = ours(TUNED, model, _scaled_rate_noise(manifest, factor), Settings())
        return mean_error_v(drive(others, model, method))

    return min(NOISE_FACTORS[: plan.values_each], key=error_v)


def _scaled_rate_noise(manifest: Manifest, factor: float) -> Manifest:
    parameters = [
        msgspec.structs.replace(p, rate_process_noise=factor * p.rate_process_noise)
        for p in manifest.parameters
    ]
    return msgspec.structs.replace(manifest, parameters=parameters)


def _claims(
    life: Driven,
    trips: Sequence[Trip],
    cell: VehicleData,
    model: VoltageModel,
    manifest: Manifest,
) -> Figures:
    """Health against the measured capacity, and the share of voltages inside the band."""
    health, std = _health(life, trips, model, manifest)
    truth = _capacity(trips, cell)
    inside: dict[float, list[float]] = {level: [] for level in LEVELS}
    for estimate, trip in zip(life.estimates, trips, strict=True):
        at = of_trip(estimate, trip, model, manifest)
        mean, band = voltage_band(at, trip.whole.features, model, manifest, Settings())
        for level in LEVELS:
            share = inside_band(trip.whole.voltage_v, mean, band, level).mean()
            inside[level].append(float(share))
    known = np.isfinite(truth) & np.isfinite(health)
    return {
        **under("health", error_figures(100 * (health - truth), "points")),
        "health/inside_95": float(
            inside_band(truth[known], health[known], std[known], 0.95).mean()
        ),
        **{f"voltage/inside_{round(100 * k)}": float(np.mean(v)) for k, v in inside.items()},
    }


def _health(
    life: Driven, trips: Sequence[Trip], model: VoltageModel, manifest: Manifest
) -> tuple[FloatArray, FloatArray]:
    """Health and its standard deviation by the estimate in force, per cycle; NaN if unreadable."""
    found = [
        health_at(estimate, trip.odometer, model, manifest)
        for estimate, trip in zip(life.estimates, trips, strict=True)
    ]
    ratio = np.array([np.nan if health is None else health.ratio for health in found])
    return ratio, np.array([np.nan if health is None else health.std for health in found])


def _capacity(trips: Sequence[Trip], cell: VehicleData) -> FloatArray:
    """Measured capacity relative to new, per cycle; NaN where the discharge was not complete."""
    return np.array([cell.health_truth.get(trip.trip_id, np.nan) for trip in trips])


def _end_of_life(trips: Sequence[Trip], cell: VehicleData) -> float:
    """Odometer at which the running median of the measured capacity falls to 80 %."""
    truth = _capacity(trips, cell)
    known = np.flatnonzero(np.isfinite(truth))
    window = np.lib.stride_tricks.sliding_window_view(truth[known], MEDIAN_OVER)
    half = MEDIAN_OVER // 2
    odometers = np.array([trips[i].odometer for i in known[half : half + len(window)]])
    return crossing(odometers, np.median(window, axis=1), END_OF_LIFE)


def _forecast(
    life: Driven,
    trips: Sequence[Trip],
    cell: VehicleData,
    model: VoltageModel,
    manifest: Manifest,
) -> Figures:
    """Predicted at half of the age at which health falls to 80 %, in cycles."""
    end = _end_of_life(trips, cell)
    if not np.isfinite(end):
        return {}
    odometers = np.array([trip.odometer for trip in trips])
    true_cycle = float(np.searchsorted(odometers, end))
    now = int(HALF * true_cycle)
    at = extrapolate(life.estimates[now], manifest, float(odometers[now]))
    forecast = crossing_forecast(model, END_OF_LIFE)
    middle, low, high = forecast(at, manifest)
    pace = (odometers[now] - odometers[0]) / now  # Ah a cycle, as known at that time
    cycle = now + (middle - odometers[now]) / pace
    return {
        "forecast/half_life/error_percent": 100 * abs(cycle - true_cycle) / true_cycle,
        "forecast/half_life/inside_95": float(low <= end <= high),
    }


def _curves(
    driven: Mapping[str, Driven],
    trips: Sequence[Trip],
    cell: VehicleData,
    model: VoltageModel,
    manifest: Manifest,
) -> dict[str, list[float]]:
    health, std = _health(driven[TUNED], trips, model, manifest)
    return {
        "health": health.tolist(),
        "health_std": std.tolist(),
        "capacity": _capacity(trips, cell).tolist(),
        "error_v": driven[TUNED].error_v.tolist(),
        "error_frozen_v": driven["frozen"].error_v.tolist(),
    }
