"""What a vehicle's word on a revision changes: applied, refused, and how its next trip went.

Pure but for the values that it is given. Must never unsay what runs: messages come late and twice.
"""

from __future__ import annotations

from typing import Final

from cloud.store.judged import Judged
from cloud.store.tables import Vehicle
from cloud.store.totals import Totals
from common.messages import Acknowledgement

FELL_BACK: Final = "worse_on_next_trip"


def record(vehicle: Vehicle | Totals, row: Judged, ack: Acknowledgement, now: float) -> bool:
    """Note a verdict; False: it is known, or came too late to mean anything.

    After `applied` only the next trip says otherwise, and what it said an `applied` that was
    overtaken does not unsay. A revision that was confirmed is one that is applied.
    """
    if _is_stale(row, ack):
        return False
    runs = ack.verdict != "refused"
    counts = row.kind == "breach"
    if runs:
        vehicle.calibrations += counts and row.verdict == "refused"
        vehicle.failures = 0
    else:
        vehicle.calibrations = max(vehicle.calibrations - counts, 0)
        vehicle.failures += counts
    row.verdict, row.verdict_at = "applied" if runs else "refused", now
    row.verdict_reason = ack.reason or None
    row.confirmed_at = now if ack.verdict == "confirmed" else None
    if ack.verdict == "confirmed" or ack.reason == FELL_BACK:
        row.verdict_detail = ack.detail or None
        row.next_trip_error_before_v = ack.error_before_v
        row.next_trip_error_after_v = ack.error_after_v
    else:
        row.verdict_detail = ack.detail or None
        row.trace_error_before_v = ack.error_before_v
        row.trace_error_after_v = ack.error_after_v
    return True


def _is_stale(row: Judged, ack: Acknowledgement) -> bool:
    if ack.verdict == "confirmed":
        return row.confirmed_at is not None
    if ack.reason == FELL_BACK or row.verdict is None:
        return row.verdict_reason == FELL_BACK
    return row.verdict in {"applied", ack.verdict} or row.verdict_reason == FELL_BACK
