"""A fleet that is cut off for thirty days: its error with and without local recalibration.

Simulated vehicles of a seed that nothing was tuned on drive a trip a day. The cloud answers up to
the cut; from then on nobody does. The vehicle's own code calibrates. Must never let the second half
know what the cloud would have said.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure
from bench.offline_loop import Breach, Method, PriorAt, S, Trip, Update, drive, ours, trips_of
from common import messages
from common.calibration import Estimate, Settings
from common.calibrator import Decline
from common.manifest import Manifest
from common.model import VoltageModel
from common.trace import to_wire
from common.trust import TrustStore
from demo.simulated import train, training_settings, vehicles_of
from edge_agent.parameters.decisions import Identity
from edge_agent.parameters.provisional import provisional_of, twin_on
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.trip_monitor import Twin
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

FloatArray = npt.NDArray[np.float64]

SEED: Final = 3026
THRESHOLD_V: Final = 0.05
DAYS: Final = 30
CUTS: Final = (10, 40, 70)  # days of driving before the cut
VEHICLE: Final = "cut-off"
NOW: Final = Stamp(1, 0.0, 0.0, is_known=True)


def measure(*, quick: bool) -> list[Figure]:
    """Errors in volts over the offline trips of all vehicles, and what a calibration costs."""
    vehicles, cuts = (4, CUTS[:2]) if quick else (20, CUTS)
    with tempfile.TemporaryDirectory() as folder:
        bundle = train(training_settings(THRESHOLD_V), Path(folder), SEED + 1, 20).bundle
    model, manifest = VoltageModel(bundle), bundle.manifest
    fleet = simulate_fleet(FleetSettings(vehicles, max(cuts) + DAYS, SEED))
    lives = [trips_of(vehicle, manifest) for vehicle in vehicles_of(fleet)]
    own = _Own(Identity(VEHICLE, bundle.sha256, manifest, TrustStore({})), model)
    cloud = ours("cloud", model, manifest, Settings())
    starts = [start for cut in cuts for start in _starts(lives, cut, model, cloud)]
    errors = {
        "without": _errors(starts, model, _silent(manifest)),
        "with local recalibration": _errors(starts, model, own.method(manifest)),
        "as if the cloud had answered": _errors(starts, model, cloud),
    }
    note = f"{vehicles} vehicles, cut off after {', '.join(map(str, cuts))} days, a trip a day"
    shown = _of_errors(errors, note)
    begin = own.method(manifest).begin
    last = [(trips[-1], begin(known)) for trips, known in starts[:8]]
    peaks = [own.peak_kb(Breach(trip.trace, trip.odometer, twin)) for trip, twin in last]
    note = f"the largest peak of {len(peaks)}, by Python's own account"
    memory = Figure("one local recalibration, memory", max(peaks), "kB", note=note)
    return [*shown, *own.figures(), memory]


def _of_errors(errors: dict[str, FloatArray], note: str) -> list[Figure]:
    found = []
    for name, error_v in errors.items():
        title = f"{DAYS} days offline, {name}"
        found.append(Figure(f"{title}: error", float(error_v.mean()), "V", note=note))
        above = 100.0 * float((error_v > THRESHOLD_V).mean())
        found.append(Figure(f"{title}: trips above the threshold", above, "%", note=note))
    return found


def _starts(
    lives: Sequence[Sequence[Trip]], cut: int, model: VoltageModel, cloud: Method[Estimate]
) -> list[tuple[Sequence[Trip], Estimate]]:
    """Of each vehicle the offline trips, and what the cloud's last answer before them left."""
    before = drive([trips[: cut + 1] for trips in lives], model, cloud)
    return [
        (trips[cut : cut + DAYS], life.estimates[-1])
        for trips, life in zip(lives, before, strict=True)
    ]


def _errors(
    starts: Sequence[tuple[Sequence[Trip], Estimate]], model: VoltageModel, method: Method[S]
) -> FloatArray:
    """Of every offline trip."""
    driven = [drive([trips], model, method, _known(estimate))[0] for trips, estimate in starts]
    return np.concatenate([life.error_v for life in driven])


def _known(estimate: Estimate) -> PriorAt:
    return lambda _odometer: estimate


def _silent(manifest: Manifest) -> Method[Estimate]:
    """Nobody answers, and the vehicle waits."""
    return Method(
        "silent",
        manifest,
        lambda estimate: estimate,
        lambda state: state,
        lambda b: [None] * len(b),
    )


@dataclass
class _Own:
    """The vehicle's own way, and how long each of its calibrations took."""

    who: Identity
    model: VoltageModel
    seconds: list[float] = field(default_factory=list)

    def method(self, manifest: Manifest) -> Method[Twin]:
        """As the agent does it, from a trip's breach to the next trip's twin."""

        def begin(estimate: Estimate) -> Twin:
            return Twin(manifest, self.model, estimate, 1, Settings())

        return Method("own", manifest, begin, lambda twin: twin.estimate, self._update)

    def _update(self, breaches: Sequence[Breach[Twin]]) -> list[Update[Twin] | None]:
        return [self._one(breach) for breach in breaches]

    def _one(self, breach: Breach[Twin]) -> Update[Twin] | None:
        message = messages.Breach(
            message_id="0" * 32,
            vehicle_id=VEHICLE,
            trip_id="trip",
            bundle=self.who.bundle,
            revision=1,
            odometer=breach.odometer,
            error_v=0.0,
            threshold_v=THRESHOLD_V,
            trace=to_wire(breach.trace),
        )
        started_s = time.perf_counter()
        made = provisional_of(message, breach.state, 0, self.who, NOW)
        self.seconds.append(time.perf_counter() - started_s)
        if isinstance(made, Decline):
            return None
        twin = twin_on(made, breach.state, self.who)
        return None if twin is None else Update(twin)

    def peak_kb(self, breach: Breach[Twin]) -> float:
        """What one calibration allocates at most, by Python's own account."""
        tracemalloc.start()
        self._one(breach)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.seconds.pop()  # being watched, it is slower
        return peak / 1000.0

    def figures(self) -> list[Figure]:
        """Milliseconds on this machine."""
        taken_ms = 1000.0 * np.array(self.seconds)
        note = f"{len(taken_ms)} calibrations of 50 points on one core"
        return [
            Figure("one local recalibration, median", float(np.median(taken_ms)), "ms", note=note),
            Figure("one local recalibration, longest", float(taken_ms.max()), "ms", note=note),
        ]
