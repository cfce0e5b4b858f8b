"""A made-up but plausible run of a demo, for the tests of its report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from common.manifest import (
    Feature,
    GroupIndex,
    Identifiability,
    Learnt,
    Manifest,
    PairIndex,
    Parameter,
    Sensitivity,
    SobolIndex,
    Target,
)
from demo.results import (
    ExampleTrip,
    FloatArray,
    RevisionRow,
    RunResults,
    TripRow,
    VoltageHistory,
)

TRIP_KM = 322.0
THRESHOLD_V = 0.05
CURVE_WH = np.array([0, 0.4, 1, 2, 3, 4, 4.2, 4.6, 4.7, 4.8, 5.0])
CURVE_V = np.array([4.75, 4.5, 4.4, 4.3, 4.2, 4.1, 4.05, 4.0, 3.8, 3.7, 2.0])


def manifest(*, with_study: bool = True) -> Manifest:
    features = [
        Feature("distance_km", "km", 0, 700),
        Feature("speed_m_s", "m/s", 0, 60),
        Feature("load_kg", "kg", 0, 20000),
    ]
    parameters = [
        Parameter("output_gain", "1", 1.0, 0.3, 0.1, 1.5),
        Parameter("distance_gain", "1", 1.0, 0.3, 0.5, 4.0),
    ]
    return Manifest(
        schema=1,
        name="made-up fleet",
        model_sha256="0" * 64,
        features=features,
        target=Target("voltage_v", "V", 0, 6),
        parameters=parameters,
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.01,
        cutoff_voltage_v=2.5,
        error_threshold_v=THRESHOLD_V,
        sensitivity=study() if with_study else None,
    )


def study() -> Sensitivity:
    totals = {
        "output_gain": 0.46,
        "distance_gain": 0.31,
        "distance_km": 0.27,
        "output_offset": 0.09,
        "last_bias": 0.06,
        "distance_offset": 0.05,
        "load_kg": 0.04,
        "load_gain": 0.03,
        "speed_m_s": 0.02,
        "last_weight_3": 0.02,
        "speed_gain": 0.01,
        "last_weight_1": 0.004,
        "speed_offset": 0.003,
        "load_offset": 0.002,
    }
    reasons = {"output_gain": "rank 1; chosen", "distance_gain": "rank 2; chosen"}
    indices = [
        SobolIndex(
            name, 0.8 * total, 0.02, total, 0.03, name in reasons, reasons.get(name, "left out")
        )
        for name, total in totals.items()
    ]
    pairs = [
        PairIndex("distance_km", "distance_gain", 0.062, 0.01),
        PairIndex("output_gain", "distance_gain", 0.031, 0.01),
        PairIndex("output_gain", "distance_km", 0.024, 0.01),
        PairIndex("load_kg", "load_gain", 0.009, 0.004),
        PairIndex("speed_m_s", "speed_gain", 0.006, 0.003),
        PairIndex("load_kg", "distance_gain", 0.008, 0.005),
        PairIndex("last_bias", "output_gain", 0.012, 0.006),
        PairIndex("output_offset", "last_bias", 0.002, 0.009),
        PairIndex("speed_m_s", "load_kg", -0.011, 0.006),
    ]
    groups = [
        GroupIndex("inputs", ["distance_km", "load_kg", "speed_m_s"], 0.25, 0.02, 0.31, 0.03),
        GroupIndex("output", ["output_gain", "output_offset", "last_bias"], 0.5, 0.02, 0.6, 0.03),
    ]
    return Sensitivity(
        samples=17408,
        indices=indices,
        pairs=pairs,
        groups=groups,
        identifiability=told_apart(),
        explanation="The made-up rule took <both> gains.",
    )


def told_apart() -> Identifiability:
    alike = [[1.0, 0.31], [0.31, 1.0]]
    return Identifiability(
        names=["output_gain", "distance_gain"],
        learnt=[
            Learnt(1, [0.04, 0.08], alike, [156.0, 625.0], 4.0, 2.1),
            Learnt(10, [0.013, 0.025], alike, [1560.0, 6250.0], 4.0, 2.1),
        ],
        weakest="least is learnt of distance_gain",
        compared=["output_gain", "distance_gain", "last_bias"],
        pairwise=[[1.0, 0.31, -0.99], [0.31, 1.0, 0.2], [-0.99, 0.2, 1.0]],
    )


def cell_voltage(distance_km: FloatArray, degradation: float) -> FloatArray:
    shrunk = 1 - degradation
    discharged_wh = distance_km / 322 * 4.2 * 0.62
    return shrunk * np.interp(discharged_wh / shrunk, CURVE_WH, CURVE_V)


@dataclass
class _Life:
    """What one made-up vehicle has recorded so far."""

    identity: str
    pace: float
    random: np.random.Generator
    known: float = 0.0
    trips: list[TripRow] = field(default_factory=list)
    revisions: list[RevisionRow] = field(default_factory=list)
    truths: list[tuple[float, float]] = field(default_factory=list)

    def drive(self, trip: int, trips: int) -> None:
        age = self.pace * (trip + 1) / trips
        truth = 0.22 * (1.35 ** (8 * age) - 1) / (1.35**8 - 1) + 0.22 * age
        odometer = TRIP_KM * trip * self.pace
        error = abs(truth - self.known) * 4.0 + abs(self.random.normal(0.012, 0.006))
        updated = bool(error > THRESHOLD_V)
        if updated:
            self.known = truth + self.random.normal(0, 0.002)
            number = len(self.revisions) + 1
            self.revisions.append(
                _revision(self.identity, number, trip, odometer, self.known, error)
            )
        self.truths.append((truth, self.known))
        health_std = 0.02 * math.exp(-len(self.revisions) / 6) + 0.004
        self.trips.append(
            TripRow(
                vehicle_id=self.identity,
                trip_id=f"trip-{trip + 1:04d}",
                odometer=odometer,
                error_frozen_v=truth * 3.1 + abs(self.random.normal(0.01, 0.01)),
                error_v=error,
                breach=updated,
                revision=len(self.revisions),
                updated=updated,
                health=1 - self.known + self.random.normal(0, 0.001),
                health_std=health_std,
                health_low=1 - self.known - 2 * health_std,
                health_high=1 - self.known + 2 * health_std,
                health_truth=1 - truth,
            )
        )

    def history(self, samples: int) -> VoltageHistory:
        along = np.linspace(0, TRIP_KM, samples)
        starts = np.array([row.odometer for row in self.trips])
        noise = self.random.normal(0, 0.01, (starts.size, samples))
        measured = np.array([cell_voltage(along, truth) for truth, _ in self.truths])
        living = np.array([cell_voltage(along, known) for _, known in self.truths])
        return VoltageHistory(
            vehicle_id=self.identity,
            odometer=(starts[:, None] + 0.999 * self.pace * along).ravel(),
            measured_v=(measured + noise).ravel(),
            frozen_v=np.tile(cell_voltage(along, 0.0), starts.size),
            living_v=living.ravel() + 0.004,
        )


def made_up(
    vehicles: int = 4, trips: int = 30, samples: int = 60, seed: int = 1, *, name: str = "car"
) -> RunResults:
    """A fleet that ages towards a degradation of about 0.44, each vehicle a little differently."""
    random = np.random.default_rng(seed)
    fleet = [
        _Life(f"{name}-{i + 1:03d}", random.uniform(0.85, 1.15), random) for i in range(vehicles)
    ]
    for life in fleet:
        for trip in range(trips):
            life.drive(trip, trips)
    return RunResults(
        title="Living twin: 20 vehicles, 100 trips each",
        subtitle="Synthetic fleet, seed 1, threshold 0.05 V, Mosquitto 2.0.11",
        manifest=manifest(),
        trips=[row for life in fleet for row in life.trips],
        revisions=[row for life in fleet for row in life.revisions],
        example=_example(f"{name}-001", samples),
        history=fleet[0].history(samples),
        summary={
            "Error without updates, last 20 trips": "1.21 V",
            "Error with updates, last 20 trips": "0.031 V",
            "Updates per 1,000 trips": "431",
            "Breach to applied, median and 99th percentile": "38 ms, 121 ms",
            "Bytes sent against streaming every sample": "2.9 %",
            "State of health against truth, at the end": "0.4 points off",
        },
        sources=["Made up for this test, in the form of https://example.org/fleet, 2024."],
    )


def _revision(
    identity: str, number: int, trip: int, odometer: float, known: float, error: float
) -> RevisionRow:
    theta = [1 - known, 1 / (1 - known)]
    std = [0.02 / math.sqrt(number) + 0.004, 0.06 / math.sqrt(number) + 0.01]
    name = f"trip-{trip + 1:04d}"
    return RevisionRow(
        identity, number, name, odometer, theta, std, 1.1, error, 0.4 * error, "applied"
    )


def _example(identity: str, samples: int) -> ExampleTrip:
    along = np.linspace(0, TRIP_KM, samples)
    measured = cell_voltage(along, 0.31) + np.random.default_rng(7).normal(0, 0.01, samples)
    before, after = cell_voltage(along, 0.285), cell_voltage(along, 0.309)
    grown = np.linspace(0.008, 0.02, samples)
    return ExampleTrip(
        identity,
        "trip-0071",
        "distance in the trip (km)",
        along,
        measured,
        cell_voltage(along, 0.0),
        before,
        2.2 * grown,
        after,
        grown,
    )


def nothing() -> RunResults:
    """A run that ended before its first trip."""
    none = np.zeros(0)
    history = VoltageHistory("", none, none, none, none)
    return RunResults("Nothing", "", manifest(with_study=False), [], [], None, history, {}, [])
