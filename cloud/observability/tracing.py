"""Spans of one breach's trace, from the vehicle's publish to its verdict, sent by OTLP over HTTP.

Whoever holds the breach's message id can add a span: ids follow from it (`trace_ids`), so ingest,
worker and another worker after a crash write into one trace. Must never block: spans wait in a
bounded queue, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanContext, TraceFlags

import cloud
from cloud.config import Tracing
from cloud.observability.metrics import Counted
from cloud.observability.trace_ids import span_id, trace_id

ROOT: Final = "vehicle.publish"
QUEUE: Final = 8192
EVERY_MS: Final = 1000
TIMEOUT_S: Final = 5.0
CLOSE_S: Final = 2.0
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

Attribute = str | int | float | bool


class Traces:
    """Makes spans and sends them by `exporter`, from a thread of their own. Any thread."""

    def __init__(self, exporter: SpanExporter, ratio: float, role: str, spans: Counted) -> None:
        self._exporter, self._spans = exporter, spans
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=QUEUE, schedule_delay_millis=EVERY_MS
        )
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)
        self._resource = Resource.create(
            {
                "service.name": "twin-cloud",
                "service.version": cloud.__version__,
                "twin.role": role,
            }
        )

    def span(
        self,
        message_id: str,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute | None],
    ) -> None:
        """Add a span of the breach's trace; times in UNIX seconds. Nothing where not sampled."""
        trace = int(trace_id(message_id), 16)
        if trace & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            return
        root = _context(trace, span_id(message_id, ROOT))
        is_root = name == ROOT
        self._spans.add("made")
        self._processor.on_end(
            ReadableSpan(
                name,
                context=root if is_root else _context(trace, span_id(message_id, name)),
                parent=None if is_root else root,
                resource=self._resource,
                attributes={key: value for key, value in attributes.items() if value is not None},
                start_time=int(start * 1e9),
                end_time=int(max(start, end) * 1e9),
            )
        )

    def close(self) -> None:
        """Send what waits, for a few seconds at most: a dead collector must not hold the end up."""
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if ending.is_alive():
            self._exporter.shutdown()  # it stops trying


def open_traces(config: Tracing, role: str, spans: Counted) -> Traces:
    """Traces to the configured endpoint."""
    exporter = _Counting(OTLPSpanExporter(config.endpoint, timeout=TIMEOUT_S), spans)
    return Traces(exporter, config.ratio, role, spans)


class _Counting(SpanExporter):
    """Counts what another exporter brings."""

    def __init__(self, exporter: SpanExporter, spans: Counted) -> None:
        self._exporter, self._spans = exporter, spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        went = result is SpanExportResult.SUCCESS
        self._spans.add("exported" if went else "failed", count=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(trace: int, span: str) -> SpanContext:
    return SpanContext(trace, int(span, 16), is_remote=False, trace_flags=_SAMPLED)
