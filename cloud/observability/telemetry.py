"""What happened, told to the metrics and, where it belongs to a breach, to its trace.

Ingest and worker speak of batches, rounds and pushes; how that is counted stands here. Must never
change what they do: it takes their values and gives nothing back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cloud.config import Tracing
from cloud.observability.metrics import Metrics
from cloud.store.effects import Effects, Verdict
from cloud.store.verdicts import FELL_BACK
from common.messages import Breach, TripSummary, message_id

if TYPE_CHECKING:
    from cloud.calibration.rounds import Outcome
    from cloud.observability.tracing import Traces  # its library is loaded where it is used


Attributes = Mapping[str, str | int | float | bool | None]


class Telemetry:
    """One process's. Without arguments it counts for nobody. Any thread."""

    def __init__(self, metrics: Metrics | None = None, traces: Traces | None = None) -> None:
        self.metrics = metrics or Metrics()
        self._traces = traces

    def stored(self, effects: Effects, messages: int, taken_at: float, now: float) -> None:
        """Ingest has committed a batch that it took at `taken_at`."""
        metrics = self.metrics
        metrics.batch_size.observe(messages)
        for (kind, outcome), count in effects.counts.items():
            metrics.received.add(kind, outcome, count=count)
        for reason, count in effects.reasons.items():
            metrics.quarantined.add(reason, count=count)
        for verdict in effects.verdicts:
            self._judged(verdict, now)
        if self._traces is not None:
            for message in effects.news:
                _trace_news(self._traces, message, taken_at, now)

    def receipts(self, sent: int, unsent: int) -> None:
        """Ingest has answered a batch."""
        self.metrics.receipts.add("sent", count=sent)
        self.metrics.receipts.add("unsent", count=unsent)

    def settled(self, outcomes: Sequence[Outcome], began: float) -> None:
        """The worker has committed a round that it began at `began`."""
        made = sum(outcome.row is not None for outcome in outcomes)
        self.metrics.calibrations.add("calibrated", count=made)
        self.metrics.calibrations.add("declined", count=len(outcomes) - made)
        ended = max((outcome.at.committed for outcome in outcomes), default=began)
        self.metrics.round_seconds.observe(max(ended - began, 0.0))
        if self._traces is not None:
            for outcome in outcomes:
                _trace_outcome(self._traces, outcome, began)

    def pushed(self, outcome: Outcome, asked_at: float, now: float) -> None:
        """The broker has, for the first time, what came of a breach; asked to at `asked_at`."""
        breach, row = outcome.breach, outcome.row
        self.metrics.pushes.add("revision" if row else "declined")
        if row is not None:
            self.metrics.to_push.observe(max(now - breach.received_at, 0.0))
        if self._traces is not None:
            what: Attributes = {
                "twin.vehicle_id": breach.vehicle_id,
                "twin.revision": row.number if row else None,
            }
            self._traces.span(breach.message_id, "push", asked_at, now, what)

    def pushed_again(self) -> None:
        """The broker has a revision that it was given before, or that no breach brought."""
        self.metrics.pushes.add("again")

    def close(self) -> None:
        """Send what waits."""
        if self._traces is not None:
            self._traces.close()

    def _judged(self, verdict: Verdict, now: float) -> None:
        row, ack = verdict.row, verdict.ack
        self.metrics.verdicts.add(ack.verdict, ack.reason or "none")
        is_first = ack.verdict != "confirmed" and ack.reason != FELL_BACK
        if is_first and row.breach_received_at is not None:
            self.metrics.to_acknowledged.observe(max(now - row.breach_received_at, 0.0))
        if self._traces is not None and row.kind == "breach":
            self._traces.span(
                row.cause_message_id,
                "acknowledged" if is_first else "next_trip",
                row.published_at or row.created_at,
                now,
                {
                    "twin.vehicle_id": row.vehicle_id,
                    "twin.revision": row.number,
                    "twin.verdict": ack.verdict,
                    "twin.reason": ack.reason or None,
                    "twin.decided_at": ack.decided_at if ack.time_known else None,
                },
            )


def open_telemetry(tracing: Tracing, role: str) -> Telemetry:
    """A process's, with a registry of its own; close it at the end."""
    metrics = Metrics(role=role)
    if tracing.endpoint is None:
        return Telemetry(metrics)
    from cloud.observability.tracing import open_traces  # noqa: PLC0415  # 20 MB that few need

    return Telemetry(metrics, open_traces(tracing, role, metrics.traces))


def _trace_news(traces: Traces, message: object, taken_at: float, now: float) -> None:
    """A breach carries no time of its own: its trip's summary tells when the trip was."""
    if isinstance(message, Breach):
        what: Attributes = {
            "twin.vehicle_id": message.vehicle_id,
            "twin.message_id": message.message_id,
            "twin.trip_id": message.trip_id,
            "twin.error_v": message.error_v,
        }
        traces.span(message.message_id, "vehicle.publish", taken_at, taken_at, what)
        traces.span(message.message_id, "ingest.commit", taken_at, now, what)
    elif isinstance(message, TripSummary) and message.breach and message.time_known:
        breach = message_id(message.vehicle_id, message.trip_id, "breach")
        ended = message.started_at + message.duration_s
        what = {"twin.vehicle_id": message.vehicle_id, "twin.trip_id": message.trip_id}
        traces.span(breach, "vehicle.trip", message.started_at, ended, what)


def _trace_outcome(traces: Traces, outcome: Outcome, began: float) -> None:
    breach, row, at = outcome.breach, outcome.row, outcome.at
    what: Attributes = {
        "twin.vehicle_id": breach.vehicle_id,
        "twin.revision": row.number if row else None,
        "twin.reason": breach.reason,
    }
    steps: Iterable[tuple[str, float, float]] = (
        ("queue.wait", breach.received_at, began),
        ("calibrate", began, at.decided),
        ("sign", at.decided, at.signed),
        ("commit", at.signed, at.committed),
    )
    for name, start, end in steps:
        traces.span(breach.message_id, name, start, end, what)
