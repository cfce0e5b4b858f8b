"""docs/observability.md names every metric, span and alert that there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric

from cloud.observability.backlog_metrics import Backlog, families
from cloud.observability.metrics import Metrics
from cloud.store.backlog import Deliveries, Jobs, Pending
from cloud.store.database import Store
from tests.test_cloud_tracing import ONE_BREACH

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/observability.md").read_text()


def table(tmp_path: Path) -> list[str]:
    """The rows that the registry of a process with everything in it makes."""
    store = Store(tmp_path / "twin.db")
    metrics = Metrics()
    metrics.watch_inbox(lambda: 0.0)
    metrics.watch_link(lambda: True)
    metrics.watch_pool(store.connections())
    everything = Backlog(Pending(0, None), Deliveries(0, 0, 0, None), Jobs(0, 0, 0, 0, 0.0, 1))
    rows = [row(family, family.samples[0].labels) for family in families(everything, 0.0)]
    for collector in metrics.registry._collector_to_names:
        labels = getattr(collector, "_labelnames", ())
        mine = (one for one in collector.collect() if one.name.startswith("twin_"))
        rows += [row(family, labels) for family in mine]
    store.close()
    return sorted(rows)


def row(family: Metric, labels: Iterable[str]) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    named = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {family.type} | {named} | {family.documentation} |"


def test_the_table_of_metrics_is_what_a_process_counts(tmp_path: Path) -> None:
    shown = sorted(line for line in PAGE.splitlines() if line.startswith("| `twin_"))
    assert shown == table(tmp_path)


def test_every_span_and_every_alert_is_explained() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "deploy/prometheus/alerts.yml").read_text())
    for word in (*ONE_BREACH, "next_trip", *alerts):
        assert f"`{word}`" in PAGE, word
