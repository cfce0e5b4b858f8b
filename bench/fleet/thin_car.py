"""A vehicle as the contract sees it: it predicts, compares, offers, judges, acknowledges.

Judgement and messages are the agent's own functions; what an agent needs beside (the disk, the
source, the band at each sample) is left out: bench.edge measures that. Pure. Must never let go of a
message without the cloud's receipt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bench.fleet.fleet_trips import Journey
from bench.offline_loop import Trip
from common import calibration
from common.ageing import MAX_EXPONENT, integrated
from common.calibration import align, extrapolate
from common.layout import layout_of
from common.manifest import Manifest
from common.messages import (
    Breach,
    Receipt,
    SignedRevision,
    Status,
    TripSummary,
    decode,
    encode,
    message_id,
)
from common.model import VoltageModel
from common.topics import Kind
from edge_agent.parameters.canary import Beside
from edge_agent.parameters.decisions import Identity, KeptTrace, authenticate, is_breach, judge
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import acknowledgement, trial_acknowledgement

BAND95_V, COVERAGE95 = 0.05, 0.95  # told, not computed: see the module's docstring


@dataclass(frozen=True)
class Offer:
    """A message that the cloud must answer with a receipt."""

    kind: Kind
    message_id: str
    payload: bytes


@dataclass
class Counts:
    """What a car has sent and heard."""

    trips: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    acknowledgements: list[str] = field(default_factory=list)
    applied: int = 0
    refused: int = 0
    declined: int = 0


class ThinCar:
    """One vehicle. Send what `drive`, `heard` and `open_offers` return."""

    def __init__(self, who: Identity, model: VoltageModel, *, always_breach: bool = False) -> None:
        self.who, self._model = who, model
        self._always_breach = always_breach
        self._estimate = self._confirmed = calibration.prior(who.manifest)
        self._number, self._trial_hash = 0, ""
        self._kept: KeptTrace | None = None
        self._open: dict[str, Offer] = {}
        self.awaiting: str | None = None  # the breach whose outcome is not known
        self.applied_at: float | None = None
        self.counts = Counts()

    @property
    def is_settled(self) -> bool:
        """Whether everything has its receipt, and the last breach its outcome."""
        return not self._open and self.awaiting is None

    def open_offers(self) -> list[Offer]:
        """What has no receipt yet."""
        return list(self._open.values())

    def status(self, now: float, *, online: bool) -> bytes:
        """What it says of itself."""
        return encode(
            Status(
                vehicle_id=self.who.vehicle_id,
                online=online,
                agent_version="thin",
                bundle=self.who.bundle,
                revision=self._number,
                outbox_depth=len(self._open),
                awaiting=[self.awaiting] if self.awaiting else [],
                on_trial=bool(self._trial_hash),
                sent_at=now if online else 0.0,
            )
        )

    def drive(self, journey: Journey, now: float) -> list[Offer]:
        """Predict and compare a whole trip; its summary, its breach, the verdict of a trial."""
        trip = journey.trip
        error_v = self._error_on(ahead(self._estimate, self.who.manifest, trip.odometer), trip)
        offers = [self._end_trial(trip, error_v, now)] if self._trial_hash else []
        breach = self._always_breach or is_breach(error_v, self.who.manifest.error_threshold_v)
        offers.append(self._summary(trip, error_v, now, breach=breach))
        if breach:
            offers.append(self._breach(journey, error_v))
        for offer in offers:
            self._open[offer.message_id] = offer
        return offers

    def heard(self, kind: str, payload: bytes, now: float) -> list[Offer]:
        """Take a receipt or a revision; what it has to say to that."""
        if kind == "receipt":
            self._receipt(decode(payload, Receipt))
            return []
        if kind == "parameters":
            return self._revision(decode(payload, SignedRevision), now)
        return []

    def _error_on(self, estimate: calibration.Estimate, trip: Trip) -> float:
        first_v = float(trip.whole.voltage_v[0])
        there = align(estimate, trip.whole.features[0], first_v, self._model, self.who.manifest)
        predicted = self._model.predict(trip.whole.features, there.theta)
        return float(np.abs(predicted - trip.whole.voltage_v).mean())

    def _end_trial(self, trip: Trip, after_v: float, now: float) -> Offer:
        confirmed = ahead(self._confirmed, self.who.manifest, trip.odometer)
        beside = Beside(self._number, self._error_on(confirmed, trip), after_v)
        ack = trial_acknowledgement(beside, self._trial_hash, self.who, _stamp(now))
        if ack.verdict == "refused":
            self._estimate = self._confirmed
        self._confirmed, self._trial_hash = self._estimate, ""
        self.counts.acknowledgements.append(ack.message_id)
        return Offer("ack", ack.message_id, encode(ack))

    def _summary(self, trip: Trip, error_v: float, now: float, *, breach: bool) -> Offer:
        km = trip.whole.features[-1, 0] - trip.whole.features[0, 0]
        summary = TripSummary(
            message_id=message_id(self.who.vehicle_id, trip.trip_id, "trip"),
            vehicle_id=self.who.vehicle_id,
            trip_id=trip.trip_id,
            bundle=self.who.bundle,
            revision=self._number,
            started_at=round(now, 3),
            duration_s=float(trip.whole.time_s[-1]),
            odometer_start=trip.odometer,
            odometer_end=trip.odometer + abs(float(km)),
            samples=len(trip.whole.voltage_v),
            refused_samples=0,
            error_v=round(error_v, 6),
            band95_v=BAND95_V,
            coverage95=COVERAGE95,
            feature_means=[float(f"{v:.7g}") for v in trip.whole.features.mean(axis=0)],
            breach=breach,
        )
        self.counts.trips.append(summary.message_id)
        return Offer("trip", summary.message_id, encode(summary))

    def _breach(self, journey: Journey, error_v: float) -> Offer:
        trip = journey.trip
        breach = Breach(
            message_id=message_id(self.who.vehicle_id, trip.trip_id, "breach"),
            vehicle_id=self.who.vehicle_id,
            trip_id=trip.trip_id,
            bundle=self.who.bundle,
            revision=self._number,
            odometer=trip.odometer,
            error_v=round(error_v, 6),
            threshold_v=self.who.manifest.error_threshold_v,
            trace=journey.wire,
        )
        self._kept = KeptTrace(breach.message_id, trip.odometer, trip.trace)
        self.awaiting = breach.message_id
        self.counts.breaches.append(breach.message_id)
        return Offer("breach", breach.message_id, encode(breach))

    def _receipt(self, receipt: Receipt) -> None:
        for name in receipt.message_ids:
            self._open.pop(name, None)
        if self.awaiting in {declined.message_id for declined in receipt.declined}:
            self.awaiting = None
            self.counts.declined += 1

    def _revision(self, message: SignedRevision, now: float) -> list[Offer]:
        verdict = authenticate(message, self.who)
        current, manifest = self._estimate, self.who.manifest
        if self._kept is not None:
            current = ahead(current, manifest, self._kept.odometer)
        verdict = judge(verdict, self._number, current, self._kept, self._model, manifest)
        revision = verdict.revision
        if revision is None or verdict.reason == "older":
            return []  # a retained one that it has judged
        self._number = revision.number
        if verdict.applied:
            self._estimate = calibration.estimate_of(revision)
            self._trial_hash = verdict.hash
            self.counts.applied += 1
            self.applied_at = now
        else:
            self.counts.refused += 1
        if revision.cause.message_id == self.awaiting:
            self.awaiting = None
        ack = acknowledgement(verdict, revision.number, self.who, _stamp(now))
        self.counts.acknowledgements.append(ack.message_id)
        self._open[ack.message_id] = Offer("ack", ack.message_id, encode(ack))
        return [self._open[ack.message_id]]


def ahead(
    estimate: calibration.Estimate, manifest: Manifest, odometer: float
) -> calibration.Estimate:
    """The estimate at a later odometer as `extrapolate` gives it, its covariance and rate left out.

    A vehicle has a processor of its own for its band; here all of them share the service's.
    """
    layout, ds = layout_of(manifest), odometer - estimate.odometer
    if ds <= 0 or layout.has_trip_spread:
        return extrapolate(estimate, manifest, odometer)
    growth = layout.law.growth if estimate.growth is None else estimate.growth
    exponent = np.minimum(growth * ds, MAX_EXPONENT)
    drift = integrated(exponent, np.asarray(ds))
    free = layout.bounds.free(estimate.theta)
    moved = layout.bounds.reachable(free + drift * estimate.rate / layout.bounds.slope(free))
    return replace(estimate, theta=layout.bounds.bounded(moved), odometer=odometer)


def _stamp(now: float) -> Stamp:
    return Stamp(1, now, now, is_known=True)
