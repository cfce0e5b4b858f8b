"""The loop without the wire: any way to calibrate, on the agent's own thinning, trip after trip.

Pure but for the model call. Must never show a method more than the vehicle sends: the thinned trace
of a breach. The truth, where there is one, is only compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from common.calibration import Estimate, Settings, align, extrapolate, prior
from common.calibrator import Case, Decision, MakeRevision, decide
from common.fleet_prior import FleetPrior, growth_at
from common.manifest import Manifest
from common.model import VoltageModel
from common.thinning import thin
from common.trace import TraceArrays, from_wire, to_wire
from demo.vehicles import FloatArray, TripData, VehicleData, feature_rows
from edge_agent.parameters.decisions import is_breach

TRACE_POINTS = 50

S = TypeVar("S")
PriorAt = Callable[[float], Estimate]


@dataclass(frozen=True)
class Trip:
    """One trip: every sample, the trace that would travel, and the voltage without noise [m]."""

    trip_id: str
    odometer: float
    whole: TraceArrays
    trace: TraceArrays
    voltage_true_v: FloatArray | None = None


@dataclass(frozen=True)
class Breach(Generic[S]):
    """What a method is given: the trace at `odometer`, and what it knew of the vehicle before."""

    trace: TraceArrays
    odometer: float
    state: S


@dataclass(frozen=True)
class Update(Generic[S]):
    """What a method knows after a breach; its NIS with `degrees` of freedom where it has one."""

    state: S
    nis: float = float("nan")
    degrees: float = float("nan")


@dataclass(frozen=True)
class Method(Generic[S]):
    """One way to calibrate. `manifest` extrapolates its estimates and holds the threshold.

    `update` gives, for each breach in turn, None where the vehicle or the cloud would refuse.
    """

    name: str
    manifest: Manifest
    begin: Callable[[Estimate], S]
    estimate: Callable[[S], Estimate]
    update: Callable[[Sequence[Breach[S]]], Sequence[Update[S] | None]]


@dataclass(frozen=True)
class Driven:
    """One vehicle's life, arrays over its trips.

    `true_error_v` is against the voltage without noise (NaN where that is unknown). `estimates` are
    those in force during each trip, at the odometer of their own update. `nis`, `degrees` are NaN
    where no update followed.
    """

    error_v: FloatArray
    true_error_v: FloatArray
    updated: npt.NDArray[np.bool_]
    estimates: list[Estimate]
    nis: FloatArray
    degrees: FloatArray


def trips_of(
    vehicle: VehicleData,
    manifest: Manifest,
    voltage_true_v: Sequence[FloatArray] | None = None,
) -> list[Trip]:
    """The vehicle's trips as its agent sees them; `voltage_true_v` per trip where it is known."""
    known: Sequence[FloatArray | None] = voltage_true_v or [None] * len(vehicle.trips)
    return [_trip(trip, manifest, true) for trip, true in zip(vehicle.trips, known, strict=True)]


def _trip(trip: TripData, manifest: Manifest, voltage_true_v: FloatArray | None) -> Trip:
    found = feature_rows(trip, manifest)
    times = trip.time_s[found.rows]
    later = np.concatenate([[True], np.diff(times) > 0])
    rows = found.rows[later]
    whole = TraceArrays(times[later] - times[0], found.features[later], trip.voltage_v[rows])
    trace = from_wire(to_wire(thin(whole, TRACE_POINTS)), manifest)
    true = None if voltage_true_v is None else voltage_true_v[rows]
    return Trip(trip.trip_id, float(trip.odometer[0]), whole, trace, true)


def ours(
    name: str,
    model: VoltageModel,
    manifest: Manifest,
    settings: Settings,
    calibrating: Manifest | None = None,
) -> Method[Estimate]:
    """The cloud's own decision; `calibrating` where it shall see another manifest than the loop."""

    def update(breaches: Sequence[Breach[Estimate]]) -> list[Update[Estimate] | None]:
        cases = [Case(b.trace, b.odometer, b.state, b.state) for b in breaches]
        return [_update(found) for found in decide(cases, model, calibrating or manifest, settings)]

    return Method(name, manifest, lambda estimate: estimate, lambda state: state, update)


def with_fleet_growth(method: Method[Estimate], fleet: FleetPrior) -> Method[Estimate]:
    """The same, each update with the growth that the fleet shows at its age, as in the cloud."""

    def update(breaches: Sequence[Breach[Estimate]]) -> list[Update[Estimate] | None]:
        return [
            made and replace(made, state=replace(made.state, growth=growth_at(fleet, b.odometer)))
            for made, b in zip(method.update(breaches), breaches, strict=True)
        ]

    return replace(method, update=update)


def _update(decision: Decision) -> Update[Estimate] | None:
    if not isinstance(decision, MakeRevision):
        return None
    found = decision.calibrated
    return Update(found.estimate, found.nis, float(found.points))


def drive(
    vehicles: Sequence[Sequence[Trip]],
    model: VoltageModel,
    method: Method[S],
    prior_at: PriorAt | None = None,
) -> list[Driven]:
    """Every vehicle trip by trip, side by side; `prior_at` says what is known before the first.

    Without it, the manifest's prior of a battery at odometer 0, as the vehicle has it.
    """
    begin = prior_at or (lambda _odometer: prior(method.manifest))
    lives = [_Life.new(len(trips), method.begin(begin(trips[0].odometer))) for trips in vehicles]
    for number in range(max(map(len, vehicles))):
        driving = [i for i, trips in enumerate(vehicles) if number < len(trips)]
        trips = [vehicles[i][number] for i in driving]
        breaching = _predict(number, trips, [lives[i] for i in driving], model, method)
        _calibrate(number, [(trips[k], lives[driving[k]]) for k in breaching], method)
    return [life.driven for life in lives]


def of_trip(estimate: Estimate, trip: Trip, model: VoltageModel, manifest: Manifest) -> Estimate:
    """The estimate at the trip's odometer, aligned with its first sample as the vehicle does."""
    there = extrapolate(estimate, manifest, trip.odometer)
    first_v = float(trip.whole.voltage_v[0])
    return align(there, trip.whole.features[0], first_v, model, manifest)


@dataclass
class _Life(Generic[S]):
    """What changes while a vehicle drives."""

    state: S
    driven: Driven

    @classmethod
    def new(cls, trips: int, state: S) -> _Life[S]:
        """Before the first trip."""
        nothing = [np.full(trips, np.nan) for _ in range(4)]
        updated = np.zeros(trips, dtype=bool)
        return cls(state, Driven(nothing[0], nothing[1], updated, [], nothing[2], nothing[3]))


def _predict(
    number: int,
    trips: Sequence[Trip],
    lives: Sequence[_Life[S]],
    model: VoltageModel,
    method: Method[S],
) -> list[int]:
    """Note the errors of one trip of each vehicle; which of them are breaches."""
    known = [method.estimate(life.state) for life in lives]
    there = [
        of_trip(estimate, trip, model, method.manifest).theta
        for estimate, trip in zip(known, trips, strict=True)
    ]
    lengths = [len(trip.whole.voltage_v) for trip in trips]
    features = np.concatenate([trip.whole.features for trip in trips])
    predicted = model.predict(features, np.repeat(np.stack(there), lengths, axis=0))
    parts = np.split(predicted, np.cumsum(lengths)[:-1])
    breaching = []
    for k, (trip, life, part) in enumerate(zip(trips, lives, parts, strict=True)):
        life.driven.estimates.append(known[k])
        error_v = float(np.abs(part - trip.whole.voltage_v).mean())
        life.driven.error_v[number] = error_v
        if trip.voltage_true_v is not None:
            life.driven.true_error_v[number] = np.abs(part - trip.voltage_true_v).mean()
        if is_breach(error_v, method.manifest.error_threshold_v):
            breaching.append(k)
    return breaching


def _calibrate(number: int, breaching: Sequence[tuple[Trip, _Life[S]]], method: Method[S]) -> None:
    if not breaching:
        return
    breaches = [Breach(trip.trace, trip.odometer, life.state) for trip, life in breaching]
    for (_, life), made in zip(breaching, method.update(breaches), strict=True):
        if made is None:
            continue
        life.state = made.state
        life.driven.updated[number] = True
        life.driven.nis[number], life.driven.degrees[number] = made.nis, made.degrees
