"""Health and range while driving: computed for whoever looks, never in the sample's way.

Takes some ten milliseconds, so the thread that answers a look does it, with a model of its own, at
most once in EVERY_S for the same trip and revision. Must never say a number without its state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from common import calibration
from common.bundle import Bundle
from common.errors import NoHealthError, QuestionError
from common.estimate import Estimate
from common.estimate_state import Evidence, State, judge, relative_std
from common.health import state_of_health
from common.manifest import Manifest
from common.model import VoltageModel
from common.remaining import remaining_until_cutoff
from common.revision import Cause
from common.sampling import Interval
from edge_agent.live.view import Battery
from edge_agent.trips.trip_values import TripSoFar

EVERY_S: Final = 20.0
Key = tuple[int, int, str]
SEED: Final = 0  # the same question has the same answer


@dataclass(frozen=True)
class Known:
    """What the vehicle knows of its battery at `odometer`.

    `estimate` is the one in force: the revision's, after `provisional` steps of the vehicle's own.
    `cause`: why the revision was made (None: no revision yet). `failures`
    counts the breaches since that brought none; `trip_age_s` since the last trip, 0 within one.
    """

    estimate: Estimate
    revision: int
    provisional: int
    cause: Cause | None
    odometer: float
    trips: int
    failures: int
    trip_age_s: float | None
    trip: TripSoFar | None

    @property
    def key(self) -> Key:
        """What it changes with at once."""
        return self.revision, self.provisional, self.trip.trip_id if self.trip else ""


class BatteryView:
    """Of one bundle; safe to be asked by several threads."""

    def __init__(self, bundle: Bundle, monotonic: Callable[[], float]) -> None:
        self._bundle, self._monotonic = bundle, monotonic
        self._lock = threading.Lock()
        self._model: VoltageModel | None = None
        self._state: State = "learning"
        self._found: tuple[Key, float, Battery] | None = None

    def of(self, known: Known) -> Battery:
        """What was found within EVERY_S, or anew."""
        with self._lock:
            now_s = self._monotonic()
            if self._found is not None:
                key, at_s, battery = self._found
                if key == known.key and now_s - at_s < EVERY_S:
                    return battery
            self._model = self._model or VoltageModel(self._bundle)
            battery = battery_of(known, self._model, self._bundle.manifest, self._state)
            self._state, self._found = battery.state, (known.key, now_s, battery)
            return battery


def battery_of(
    known: Known, model: VoltageModel, manifest: Manifest, previous: State = "learning"
) -> Battery:
    """Health, range and state; `previous` is the state before."""
    here = calibration.extrapolate(known.estimate, manifest, known.odometer)
    judgement = judge(previous, _evidence(known, here, manifest))
    found = state_of_health(here, model, manifest, np.random.default_rng(SEED))
    return Battery(
        state=judgement.state,
        reason=judgement.reason,
        odometer=known.odometer,
        odometer_unit=manifest.odometer_unit,
        health=found.ratio if found else None,
        remaining=_remaining(known, here, model, manifest),
    )


def _remaining(
    known: Known, here: Estimate, model: VoltageModel, manifest: Manifest
) -> Interval | None:
    """From where the trip stands, else from the beginning; None beyond what the model covers."""
    if manifest.health is None:
        return None
    swept, conditions = manifest.health.swept_feature, {}
    if known.trip is None:
        estimate = calibration.with_trip_spread(here, manifest)
        conditions[swept] = manifest.health.start
    else:
        names = [feature.name for feature in manifest.features]
        conditions = dict(zip(names, known.trip.feature_means, strict=True))
        conditions[swept] = known.trip.newest.row[names.index(swept)]
        estimate = known.trip.estimate
    try:
        left = remaining_until_cutoff(
            estimate, conditions, model, manifest, np.random.default_rng(SEED)
        )
    except (QuestionError, NoHealthError):
        return None
    return left.distance_km or left.swept


def _evidence(known: Known, here: Estimate, manifest: Manifest) -> Evidence:
    """As far as the vehicle knows it: the cloud sees the same, and what never arrived here."""
    cause = known.cause if known.cause and known.cause.kind == "breach" else None
    error_left = None
    if cause is not None and known.provisional == 0:
        error_left = cause.error_after_v / manifest.error_threshold_v
    prior_stds = np.array([parameter.prior_std for parameter in manifest.parameters])
    return Evidence(
        trips=known.trips,
        calibrations=1 if cause or known.provisional else 0,
        relative_std=relative_std(here.covariance, prior_stds),
        error_left=error_left,
        failures=known.failures,
        last_trip_age_s=known.trip_age_s,
    )
