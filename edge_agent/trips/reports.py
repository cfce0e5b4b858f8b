"""Build the messages that the vehicle sends. Pure. Rounds to what the measurement is worth."""

from __future__ import annotations

import math

import msgspec

from common.messages import (
    MAX_PAYLOAD_BYTES,
    Acknowledgement,
    Breach,
    Trace,
    TripSummary,
    encode,
    message_id,
)
from common.thinning import thin
from common.trace import to_wire, without
from edge_agent.parameters.canary import Beside, is_worse
from edge_agent.parameters.decisions import Identity, Verdict, is_breach
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.trip_record import Thinned
from edge_agent.trips.trip_values import TripResult


def reports_of(result: TripResult, who: Identity) -> tuple[TripSummary, Breach | None]:
    """The summary of a trip and, when its error exceeds the threshold, its breach."""
    breach = is_breach(result.error_v, who.manifest.error_threshold_v)
    return _summary(result, who, breach=breach), _breach(result, who) if breach else None


def acknowledgement(verdict: Verdict, number: int, who: Identity, now: Stamp) -> Acknowledgement:
    """The vehicle's word on a revision; the same verdict on the same revision is one message."""
    kind = f"ack-{number}-{verdict.hash}-{verdict.reason}"
    return Acknowledgement(
        message_id=message_id(who.vehicle_id, "", kind),
        vehicle_id=who.vehicle_id,
        revision=number,
        revision_hash=verdict.hash,
        verdict="applied" if verdict.applied else "refused",
        reason=verdict.reason,
        detail=verdict.detail[:512],
        error_before_v=_rounded(verdict.error_before_v),
        error_after_v=_rounded(verdict.error_after_v),
        decided_at=round(now.unix_s, 3),
        time_known=now.is_known,
    )


def trial_acknowledgement(
    beside: Beside, revision_hash: str, who: Identity, now: Stamp
) -> Acknowledgement:
    """The vehicle's word on what was on trial, after the trip that it drove."""
    worse = is_worse(beside.before_v, beside.after_v, who.manifest)
    kind = f"canary-{beside.revision}-{revision_hash}-{'worse' if worse else 'confirmed'}"
    told = f"error on the next trip {beside.before_v:.4f} V before, {beside.after_v:.4f} V after"
    return Acknowledgement(
        message_id=message_id(who.vehicle_id, "", kind),
        vehicle_id=who.vehicle_id,
        revision=beside.revision,
        revision_hash=revision_hash,
        verdict="refused" if worse else "confirmed",
        reason="worse_on_next_trip" if worse else "",
        detail=told,
        error_before_v=_rounded(beside.before_v),
        error_after_v=_rounded(beside.after_v),
        decided_at=round(now.unix_s, 3),
        time_known=now.is_known,
    )


def _summary(result: TripResult, who: Identity, *, breach: bool) -> TripSummary:
    return TripSummary(
        message_id=message_id(who.vehicle_id, result.trip_id, "trip"),
        vehicle_id=who.vehicle_id,
        trip_id=result.trip_id,
        bundle=who.bundle,
        revision=result.revision,
        started_at=round(result.started_at, 3),
        duration_s=round(result.duration_s, 3),
        odometer_start=round(result.odometer_start, 6),
        odometer_end=round(result.odometer_end, 6),
        samples=result.samples,
        refused_samples=result.refused_samples,
        error_v=round(result.error_v, 6),
        band95_v=round(result.band95_v, 6),
        coverage95=round(result.coverage95, 4),
        feature_means=[float(f"{mean:.7g}") for mean in result.feature_means],
        breach=breach,
        partial=result.partial,
        time_known=result.started is None or result.started.is_known,
        provisional=result.provisional,
    )


def _breach(result: TripResult, who: Identity) -> Breach:
    """With as many points of the trace as the contract's largest payload holds."""
    thinned = result.thinned
    breach = _breach_of(result, _trace_of(thinned), who)
    evidence = without(thinned.trace, thinned.worst)
    while len(encode(breach)) > MAX_PAYLOAD_BYTES:
        evidence = thin(evidence, len(evidence.time_s) // 2)
        breach = _breach_of(result, to_wire(evidence), who)
    return breach


def _trace_of(thinned: Thinned) -> Trace:
    return msgspec.structs.replace(
        to_wire(thinned.trace, thinned.worst),
        within_v=math.ceil(1e6 * thinned.within[-1]) / 1e6,
        error_v=round(thinned.error_v, 6),
    )


def _breach_of(result: TripResult, trace: Trace, who: Identity) -> Breach:
    return Breach(
        message_id=message_id(who.vehicle_id, result.trip_id, "breach"),
        vehicle_id=who.vehicle_id,
        trip_id=result.trip_id,
        bundle=who.bundle,
        revision=result.revision,
        odometer=round(result.odometer_start, 6),
        error_v=round(result.error_v, 6),
        threshold_v=who.manifest.error_threshold_v,
        trace=trace,
        provisional=result.provisional,
    )


def _rounded(error_v: float | None) -> float | None:
    return None if error_v is None else round(error_v, 6)
