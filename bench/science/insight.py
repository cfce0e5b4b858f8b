"""What our own estimates claim of each trip, against the truth: bands, health, range, NIS, NEES.

Pure but for the model call. Every claim is made before the trip, by the estimate that was in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Driven, Trip, of_trip
from bench.science.fleet import Truth
from bench.science.forecast import Forecast, health_at
from bench.science.merit import (
    LEVELS,
    consistency,
    coverage_figures,
    error_figures,
    inside_band,
    nees,
)
from bench.science.spread import Figures, under
from common.calibration import (
    Estimate,
    Settings,
    calibrate,
    extrapolate,
    voltage_band,
    with_trip_spread,
)
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

# How long before the end of life a forecast is made, in shares of that life.
FORECASTS = {"20_percent_before": 0.8, "half_life": 0.5}


@dataclass(frozen=True)
class Claims:
    """Of one vehicle, arrays over its trips; shares are by level."""

    measured_inside: dict[float, FloatArray]
    true_inside: dict[float, FloatArray]
    health: FloatArray
    health_std: FloatArray
    range_km: FloatArray
    range_std_km: FloatArray
    nis: FloatArray
    degrees: FloatArray
    nees: FloatArray


def claims_of(
    life: Driven,
    trips: Sequence[Trip],
    true_theta: FloatArray,
    model: VoltageModel,
    manifest: Manifest,
) -> Claims:
    """What the estimates in force claimed about each trip; `true_theta` [T, P] for the NEES."""
    there = [
        extrapolate(estimate, manifest, trip.odometer)
        for estimate, trip in zip(life.estimates, trips, strict=True)
    ]
    bands = [
        _band(of_trip(estimate, trip, model, manifest), trip, model, manifest)
        for estimate, trip in zip(life.estimates, trips, strict=True)
    ]
    health = np.array([_health(at, model, manifest) for at in there])
    surprise = np.array(
        [_surprise(at, trip, model, manifest) for at, trip in zip(there, trips, strict=True)]
    )
    count = true_theta.shape[1]
    distances = [
        nees(at.theta, with_trip_spread(at, manifest).covariance[:count, :count], theta)
        for at, theta in zip(there, true_theta, strict=True)
    ]
    return Claims(
        {level: np.array([band[0][level] for band in bands]) for level in LEVELS},
        {level: np.array([band[1][level] for band in bands]) for level in LEVELS},
        health=health[:, 0],
        health_std=health[:, 1],
        range_km=health[:, 2],
        range_std_km=health[:, 3],
        nis=surprise[:, 0],
        degrees=surprise[:, 1],
        nees=np.array(distances),
    )


def _band(
    at: Estimate, trip: Trip, model: VoltageModel, manifest: Manifest
) -> tuple[dict[float, float], dict[float, float]]:
    """Shares of the trip's samples inside, by level: measured, and without the noise of the BMS."""
    mean, std = voltage_band(at, trip.whole.features, model, manifest, Settings())
    noise = manifest.measurement_noise_std_v
    own = np.sqrt(np.maximum(std**2 - noise**2, 0.0))
    true_v = trip.whole.voltage_v if trip.voltage_true_v is None else trip.voltage_true_v
    measured = {v: float(inside_band(trip.whole.voltage_v, mean, std, v).mean()) for v in LEVELS}
    true = {v: float(inside_band(true_v, mean, own, v).mean()) for v in LEVELS}
    return measured, true


def _health(at: Estimate, model: VoltageModel, manifest: Manifest) -> tuple[float, ...]:
    """Health and range, each with its standard deviation."""
    found = health_at(at, at.odometer, model, manifest)
    if found is None:
        return (float("nan"),) * 4
    return found.ratio, found.std, found.usable, found.usable_std


def _surprise(
    at: Estimate, trip: Trip, model: VoltageModel, manifest: Manifest
) -> tuple[float, float]:
    """NIS and degrees of freedom of the trip's trace, breach or not."""
    (found,) = calibrate([at], [trip.trace], [trip.odometer], model, manifest, Settings())
    return found.nis, float(found.points)


def claim_figures(
    claims: Sequence[Claims], lives: Sequence[Driven], truths: Sequence[Truth]
) -> Figures:
    """The figures of a fleet."""
    measured = {v: np.stack([c.measured_inside[v] for c in claims]) for v in LEVELS}
    true = {v: np.stack([c.true_inside[v] for c in claims]) for v in LEVELS}
    health, range_km = _errors(claims, truths)
    parameters = len(lives[0].estimates[0].theta)
    updates = np.concatenate([life.nis for life in lives])
    degrees = np.concatenate([life.degrees for life in lives])
    every = np.concatenate([c.nis for c in claims])
    every_degrees = np.concatenate([c.degrees for c in claims])
    return {
        **under("voltage", coverage_figures(measured)),
        **under("voltage_true", coverage_figures(true)),
        **under("health", coverage_figures(_insides(claims, truths, "health"))),
        **under("range", coverage_figures(_insides(claims, truths, "range"))),
        **under("health", error_figures(100 * health, "points")),
        **under("range", error_figures(100 * range_km, "percent")),
        **under("nis_updates", consistency(updates, degrees)),
        **under("nis_trips", consistency(every, every_degrees)),
        **under("nees", consistency(np.concatenate([c.nees for c in claims]), parameters)),
    }


def _errors(claims: Sequence[Claims], truths: Sequence[Truth]) -> tuple[FloatArray, FloatArray]:
    """Health minus truth, and range relative to truth minus 1, [vehicles, trips]."""
    health = [c.health - t.health for c, t in zip(claims, truths, strict=True)]
    range_km = [c.range_km / t.range_km - 1.0 for c, t in zip(claims, truths, strict=True)]
    return np.stack(health), np.stack(range_km)


def _insides(
    claims: Sequence[Claims], truths: Sequence[Truth], kind: str
) -> dict[float, FloatArray]:
    pairs = [
        (t.health, c.health, c.health_std)
        if kind == "health"
        else (t.range_km, c.range_km, c.range_std_km)
        for c, t in zip(claims, truths, strict=True)
    ]
    return {
        level: np.stack([inside_band(*pair, level).astype(np.float64) for pair in pairs])
        for level in LEVELS
    }


def forecast_figures(
    life: Driven,
    odometers: FloatArray,
    end_of_life: float,
    forecast: Forecast,
    manifest: Manifest,
) -> Figures:
    """Error in percent of the true odometer, and whether it lies in the 95 % interval."""
    found: Figures = {}
    if not np.isfinite(end_of_life):
        return found
    for name, share in FORECASTS.items():
        trip = int(np.searchsorted(odometers, share * end_of_life, side="right")) - 1
        at = extrapolate(life.estimates[trip], manifest, float(odometers[trip]))
        middle, low, high = forecast(at, manifest)
        found[f"{name}/error_percent"] = 100 * abs(middle - end_of_life) / end_of_life
        found[f"{name}/inside_95"] = float(low <= end_of_life <= high)
    return found
