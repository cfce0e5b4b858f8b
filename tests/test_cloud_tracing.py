"""One breach, one trace: from the vehicle's publish to its verdict, whoever adds the spans."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.config import Tracing, load_config
from cloud.observability.metrics import Metrics
from cloud.observability.telemetry import Telemetry, open_telemetry
from cloud.observability.trace_ids import span_id, trace_id
from cloud.observability.tracing import QUEUE, ROOT
from cloud.roles.service import Service
from cloud.store import revisions
from common.bundle import load_bundle
from common.messages import SignedRevision, decode, encode
from common.revision import decode_revision
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from tests.cloud_doubles import Car, Insides, write_bundle
from tests.conftest import Connect, eventually
from tests.otlp_collector import Collector, attributes, collecting

ONE_BREACH = {
    "vehicle.publish",
    "vehicle.trip",
    "ingest.commit",
    "queue.wait",
    "calibrate",
    "sign",
    "commit",
    "push",
    "acknowledged",
}
ROOT_FOLDER = Path(__file__).resolve().parent.parent


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def test_the_trace_id_is_a_pure_function_of_the_breachs_message_id() -> None:
    message_id = "00ff" * 8
    assert trace_id(message_id) == hashlib.sha256(message_id.encode()).digest()[:16].hex()
    assert span_id(message_id, "push") != span_id(message_id, "commit")
    assert len(span_id(message_id, "push")) == 16


def test_a_breach_is_one_trace_over_a_real_broker(
    mosquitto: PrivateBroker, tmp_path: Path, connect: Connect, collector: Collector
) -> None:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "keys/private.pem", tmp_path / "keys/public.pem")
    config = tmp_path / "twin-cloud.toml"
    config.write_text(
        f'[mqtt]\nport = {mosquitto.port}\n[store]\npath = "twin.db"\n'
        '[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "keys/private.pem"\n'
        f'[tracing]\nendpoint = "{collector.endpoint}"\n'
    )
    began = time.time()
    service = Service(load_config(config), time.time, lambda: None)
    service.start()
    try:
        eventually(lambda: service.link.is_connected, what="the link's connection")
        car = Car("car", load_bundle(tmp_path / "bundle"))
        peer = connect(mosquitto, "car")
        peer.subscribe("twin/v1/car/parameters")
        breach = car.breach(5)
        summary = car.trip(5, breach=True, started_at=began - 100.0, duration_s=90.0)
        peer.publish("twin/v1/car/trip", encode(summary))
        peer.publish("twin/v1/car/breach", encode(breach))
        eventually(lambda: peer.received, what="the revision")
        eventually(lambda: _is_noted(service), what="the note that the broker has it")
        with service.store.read() as db:
            row = revisions.by_number(db, "car", 1)
        assert row is not None
        peer.publish("twin/v1/car/ack", encode(car.acknowledgement(row, "applied")))
        trace = trace_id(breach.message_id)
        eventually(lambda: collector.of_trace(trace).keys() >= ONE_BREACH, what="the whole trace")
    finally:
        service.stop()
    cause = decode_revision(decode(peer.received[0][1], SignedRevision).revision.encode()).cause
    assert trace_id(cause.message_id) == trace  # the revision names the trace
    _check_order(collector.of_trace(trace), breach.message_id, began)
    assert {span.trace_id.hex() for span in collector.spans} == {trace}
    assert service.metrics.registry.get_sample_value("twin_spans_total", {"outcome": "failed"}) == 0


def _is_noted(service: Service) -> bool:
    with service.store.read() as db:
        row = revisions.by_number(db, "car", 1)
    return row is not None and row.published_at is not None


def _check_order(spans: dict, message_id: str, began: float) -> None:  # type: ignore[type-arg]
    root = spans[ROOT]
    assert root.parent_span_id == b""
    children = {name: span for name, span in spans.items() if name != ROOT}
    assert {span.parent_span_id for span in children.values()} == {root.span_id}
    for name, span in spans.items():
        assert span.span_id.hex() == span_id(message_id, name)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    happened = ["vehicle.trip", ROOT, "ingest.commit", "calibrate", "sign", "commit", "push"]
    starts = [spans[name].start_time_unix_nano for name in [*happened, "acknowledged"]]
    assert starts == sorted(starts)
    assert root.start_time_unix_nano >= began * 1e9
    said = attributes(spans["acknowledged"])
    assert (said["twin.verdict"], said["twin.revision"]) == ("applied", 1)
    assert attributes(root)["twin.vehicle_id"] == "car"


@pytest.fixture
def insides(tmp_path: Path) -> Iterator[Insides]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    yield inside
    inside.store.close()


def told(insides: Insides, tracing: Tracing) -> Telemetry:
    """Let them work with traces; close what is returned to send everything."""
    insides.telemetry = open_telemetry(tracing, "serve")
    insides.start()
    return insides.telemetry


def test_another_life_writes_into_the_same_trace_and_a_duplicate_adds_none(
    insides: Insides, collector: Collector
) -> None:
    car, where = insides.car(), Tracing(endpoint=collector.endpoint)
    first = told(insides, where)
    insides.take(car.breach(1), car.breach(1))
    first.close()
    second = told(insides, where)
    insides.take(car.breach(1))
    insides.work()
    second.close()
    names = [span.name for span in collector.spans]
    assert sorted(names) == sorted(ONE_BREACH - {"vehicle.trip", "acknowledged"})
    assert len({span.trace_id for span in collector.spans}) == 1


def test_a_declined_breach_ends_with_its_reason(insides: Insides, collector: Collector) -> None:
    car = insides.car()
    telemetry = told(insides, Tracing(endpoint=collector.endpoint))
    insides.take(car.breach(5))
    insides.work()
    late = car.breach(1)
    insides.take(late)
    insides.work()
    telemetry.close()
    commit = collector.of_trace(trace_id(late.message_id))["commit"]
    assert "arrived after" in str(attributes(commit)["twin.reason"])


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.3, 20, 40), (1.0, 100, 100)])
def test_the_sampled_share_is_the_same_for_every_process(
    insides: Insides, collector: Collector, ratio: float, least: int, most: int
) -> None:
    telemetry = told(insides, Tracing(endpoint=collector.endpoint, ratio=ratio))
    cars = [insides.car(f"car{number}") for number in range(100)]
    insides.take(*(car.breach(1) for car in cars))
    insides.work()
    telemetry.close()
    by_step: dict[str, set[bytes]] = {}
    for span in collector.spans:
        by_step.setdefault(span.name, set()).add(span.trace_id)
    assert least <= len(by_step.get(ROOT, ())) <= most
    assert all(traces == by_step[ROOT] for traces in by_step.values())


def test_a_collector_that_is_gone_or_slow_holds_nobody_up() -> None:
    """Nothing waits for it: neither a span, nor a full queue, nor the end."""
    telemetry = open_telemetry(Tracing(endpoint="http://127.0.0.1:9/v1/traces"), "serve")
    assert telemetry._traces is not None
    for number in range(2 * QUEUE):
        telemetry._traces.span(f"{number:032x}", ROOT, 1.0, 2.0, {})
    made = telemetry.metrics.registry.get_sample_value("twin_spans_total", {"outcome": "made"})
    assert made == 2 * QUEUE
    telemetry.close()


def test_without_an_endpoint_the_library_is_not_even_loaded() -> None:
    program = (
        "import sys; from cloud.observability.telemetry import open_telemetry; "
        "from cloud.config import Tracing; import cloud.roles.service; "
        "open_telemetry(Tracing(), 'serve'); print('opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT_FOLDER, check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def test_what_is_made_is_either_sent_or_counted_as_failed(collector: Collector) -> None:
    collector.status = 400
    telemetry = open_telemetry(Tracing(endpoint=collector.endpoint), "serve")
    assert telemetry._traces is not None
    telemetry._traces.span("ab" * 16, ROOT, 1.0, 2.0, {})
    telemetry.close()
    assert _spans(telemetry.metrics) == {"made": 1, "exported": 0, "failed": 1}


def _spans(metrics: Metrics) -> dict[str, float | None]:
    ask = metrics.registry.get_sample_value
    return {
        name: ask("twin_spans_total", {"outcome": name}) for name in ("made", "exported", "failed")
    }
