"""What the service counts, under labels of closed sets, and what it says of its health."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cloud.api.access import Context
from cloud.errors import StoreUnavailableError
from cloud.intake.interpretation import Delivery
from cloud.observability.backlog_metrics import FRESH_S, BacklogMetrics
from cloud.observability.metrics import Metrics
from cloud.observability.telemetry import Telemetry
from tests.cloud_doubles import Insides, problem, serving, write_bundle


@pytest.fixture
def insides(tmp_path: Path) -> Iterator[Insides]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    yield inside
    inside.store.close()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_messages_are_counted_by_kind_and_outcome(insides: Insides) -> None:
    car, metrics = insides.car(), insides.telemetry.metrics
    insides.take(car.trip(1), car.breach(1), car.status(), car.provisional(1))
    insides.take(car.trip(1), car.breach(1), car.provisional(1), Delivery("twin/v1/car/trip", b"{"))
    insides.take(Delivery("no/topic/of/ours", b""))
    for kind in ("trip", "breach", "provisional"):
        for outcome in ("stored", "repeated"):
            name = "twin_messages_received_total"
            assert value(metrics, name, kind=kind, outcome=outcome) == 1, (kind, outcome)
    received = "twin_messages_received_total"
    assert value(metrics, received, kind="status", outcome="stored") == 1
    assert value(metrics, received, kind="trip", outcome="quarantined") == 1
    assert value(metrics, received, kind="other", outcome="quarantined") == 1
    assert value(metrics, "twin_quarantined_total", reason="MalformedMessageError") == 1
    assert value(metrics, "twin_quarantined_total", reason="TopicError") == 1
    assert value(metrics, "twin_ingest_batch_messages_sum") == 9
    assert value(metrics, "twin_ingest_commit_seconds_count") == 3
    assert value(metrics, "twin_receipts_total", outcome="sent") == 2


def test_a_receipt_that_nobody_took_is_counted(insides: Insides) -> None:
    insides.publisher.connected = False
    insides.take(insides.car().trip(1))
    assert value(insides.telemetry.metrics, "twin_receipts_total", outcome="unsent") == 1


def test_a_breach_is_followed_to_its_push_and_its_verdict(insides: Insides) -> None:
    car, metrics = insides.car(), insides.telemetry.metrics
    insides.take(car.breach(1))
    insides.now += 0.03
    insides.work()
    assert value(metrics, "twin_calibrations_total", outcome="calibrated") == 1
    assert value(metrics, "twin_pushes_total", kind="revision") == 1
    assert value(metrics, "twin_breach_to_push_seconds_sum") == pytest.approx(0.03, abs=1e-6)
    insides.now += 2.0
    insides.take(car.acknowledgement(insides.rows()[0], "applied"))
    insides.take(car.acknowledgement(insides.rows()[0], "applied"))  # said twice, counted once
    seconds = value(metrics, "twin_breach_to_acknowledged_seconds_sum")
    assert seconds == pytest.approx(2.03, abs=1e-6)
    assert value(metrics, "twin_verdicts_total", verdict="applied", reason="none") == 1
    insides.take(car.acknowledgement(insides.rows()[0], "confirmed", reason=""))
    assert value(metrics, "twin_verdicts_total", verdict="confirmed", reason="none") == 1
    assert value(metrics, "twin_breach_to_acknowledged_seconds_count") == 1  # the first word


def test_a_declined_breach_is_counted_as_such(insides: Insides) -> None:
    car, metrics = insides.car(), insides.telemetry.metrics
    insides.take(car.breach(5))
    insides.work()
    insides.take(car.breach(1))  # late
    insides.work()
    assert value(metrics, "twin_calibrations_total", outcome="declined") == 1
    assert value(metrics, "twin_pushes_total", kind="declined") == 1
    assert value(metrics, "twin_calibration_round_seconds_count") == 2


def test_what_waits_is_asked_of_the_database_and_kept_for_a_moment(insides: Insides) -> None:
    registry = CollectorRegistry()
    registry.register(BacklogMetrics(insides.store, lambda: insides.now))
    ask = registry.get_sample_value
    insides.take(insides.car("a").breach(1), insides.car("b").breach(1))
    insides.now += 7.0
    assert ask("twin_pending_breaches") == 2
    assert ask("twin_oldest_pending_breach_age_seconds") == pytest.approx(7.0)
    insides.work()
    assert ask("twin_pending_breaches") == 2
    insides.now += FRESH_S
    assert ask("twin_pending_breaches") == 0
    assert ask("twin_oldest_pending_breach_age_seconds") == 0


def test_a_scrape_survives_a_database_that_does_not_answer() -> None:
    class Gone:
        def read(self) -> object:
            raise StoreUnavailableError(OSError("gone"))

    registry = CollectorRegistry()
    registry.register(BacklogMetrics(Gone(), lambda: 0.0))  # type: ignore[arg-type]
    assert registry.get_sample_value("twin_database_reachable") == 0
    assert registry.get_sample_value("twin_pending_breaches") is None


@pytest.fixture
def client(insides: Insides) -> Iterator[httpx.Client]:
    checks = {"database": lambda: None, "broker": lambda: "it is gone"}
    metrics = insides.telemetry.metrics
    here = Context(insides.store, insides.catalogue, lambda: insides.now, checks, metrics=metrics)
    with serving(here) as client:
        yield client


def test_requests_are_counted_by_route_template_never_by_path(
    insides: Insides, client: httpx.Client
) -> None:
    insides.take(insides.car().trip(1))
    client.get("/api/v1/vehicles/car")
    client.get("/api/v1/vehicles/nobody")
    client.get("/api/v1/somewhere/else")
    client.request("BREW", "/api/v1/vehicles/car")
    metrics, name = insides.telemetry.metrics, "twin_http_requests_total"
    route = "/api/v1/vehicles/{vehicle_id}"
    assert value(metrics, name, method="GET", route=route, status="200") == 1
    assert value(metrics, name, method="GET", route=route, status="404") == 1
    assert value(metrics, name, method="GET", route="unmatched", status="404") == 1
    seconds = "twin_http_request_seconds_count"
    assert value(metrics, seconds, method="GET", route=route) == 2
    text = client.get("/metrics").text
    assert "BREW" not in text
    assert "nobody" not in text
    assert "somewhere" not in text


def test_no_vehicle_and_no_message_is_a_label(insides: Insides, client: httpx.Client) -> None:
    car = insides.car("a-car-of-somebody")
    insides.take(car.trip(1), car.breach(1), Delivery("twin/v1/a-car-of-somebody/trip", b"{"))
    insides.work()
    insides.take(car.acknowledgement(insides.rows("a-car-of-somebody")[0], "refused"))
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "a-car-of-somebody" not in answer.text
    names = {
        name
        for f in text_string_to_metric_families(answer.text)
        for s in f.samples
        for name in s.labels
    }
    assert names <= {
        "kind", "outcome", "reason", "verdict", "method", "route", "status", "state", "le",
        "version", "python", "role",
    }  # fmt: skip


def test_health_says_which_check_failed_under_both_names(client: httpx.Client) -> None:
    for path in ("/health/live", "/healthz"):
        assert client.get(path).json() == {"status": "ok"}
    for path in ("/health/ready", "/readyz"):
        found = problem(client.get(path), 503)["violations"]
        assert found == [{"where": "broker", "problem": "it is gone"}]


def test_a_process_of_several_roles_is_connected_when_each_of_its_links_is() -> None:
    metrics, links = Metrics(), {"ingest": True, "worker": True}
    metrics.watch_link(lambda: links["ingest"])
    metrics.watch_link(lambda: links["worker"])
    assert value(metrics, "twin_link_connected") == 1
    links["worker"] = False
    assert value(metrics, "twin_link_connected") == 0


def test_two_processes_in_one_interpreter_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.receipts(3, 0)
    assert value(one.metrics, "twin_receipts_total", outcome="sent") == 3
    assert value(other.metrics, "twin_receipts_total", outcome="sent") == 0
