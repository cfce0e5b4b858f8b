"""The dashboard, the alerts and the scrape configuration, executed by a real Prometheus.

It scrapes a running service through whose broker breaches, trips, verdicts and garbage have gone.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.bundle import load_bundle
from common.messages import SignedRevision, decode, encode
from common.revision import decode_revision, revision_hash
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.database import PrivatePostgres
from tests.cloud_doubles import Car, write_bundle
from tests.conftest import TEMPLATE, BrokerFactory, eventually
from tests.mqtt_peer import Peer
from tests.otlp_collector import collecting
from tests.prometheus_server import Prometheus, programs, prometheus, promtool

pytestmark = pytest.mark.xdist_group("prometheus")  # its service is started once

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/twin-cloud.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
COMPARISON = re.compile(r" (?:==|>) [0-9.]+$")


@pytest.fixture(scope="module")
def scraped(
    tmp_path_factory: pytest.TempPathFactory,
    mosquitto_broker_factory: BrokerFactory,
    postgres: PrivatePostgres,
) -> Iterator[Prometheus]:
    """A Prometheus that has seen a service before, during and after some traffic.

    On PostgreSQL, so that the task queue has something to say.
    """
    programs()
    folder = tmp_path_factory.mktemp("scraped")
    broker = mosquitto_broker_factory()
    store = postgres.create("scraped", TEMPLATE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        collecting() as collector,
        running_service(folder, broker, port, store, collector.endpoint) as api,
        prometheus(scrape_config(folder, port), folder) as server,
    ):
        eventually(lambda: server.ask('up{job="twin-cloud"}') == [1.0], 60.0, "the first scrape")
        drive(broker, folder)
        api.get("/api/v1/vehicles")
        eventually(lambda: server.ask("twin_breach_to_acknowledged_seconds_count > 0"), 60.0)
        eventually(lambda: server.ask('rate(twin_spans_total{outcome="made"}[20s]) > 0'), 60.0)
        eventually(lambda: server.ask("rate(twin_quarantined_total[1m])"), 60.0)
        yield server


class running_service:  # noqa: N801 - reads as what it gives
    """`twin-cloud serve` as a process of its own."""

    def __init__(
        self, folder: Path, broker: PrivateBroker, port: int, store: str, endpoint: str
    ) -> None:
        write_bundle(folder / "bundle")
        create_key_pair(folder / "keys/private.pem", folder / "keys/public.pem")
        config = folder / "twin-cloud.toml"
        config.write_text(
            f'[mqtt]\nport = {broker.port}\n[store]\nurl = "{store}"\n'
            '[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "keys/private.pem"\n'
            f'[api]\nport = {port}\n[logs]\nformat = "json"\n[tracing]\nendpoint = "{endpoint}"\n'
        )
        make_key(folder, store)
        self._key = (folder / "prometheus.key").read_text().strip()
        self._log = folder / "twin-cloud.log"
        self._port = port
        self._command = [sys.executable, "-m", "cloud", "serve", "--config", str(config)]

    def __enter__(self) -> httpx.Client:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stderr=log, cwd=ROOT)
        eventually(lambda: '"event": "ready"' in self._log.read_text(), 60.0, "the service")
        shown = {"Authorization": f"Bearer {self._key}"}
        address = f"http://127.0.0.1:{self._port}"
        self._client = httpx.Client(base_url=address, headers=shown, trust_env=False)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()


def make_key(folder: Path, store: str) -> None:
    """As the head of the shipped configuration says."""
    command = "api-keys create --name prometheus --database twin.db"
    assert f"twin-cloud {command} > prometheus.key" in (DEPLOY / "prometheus.yml").read_text()
    with (folder / "prometheus.key").open("w") as key:
        arguments = [store if part == "twin.db" else part for part in command.split()]
        program = [sys.executable, "-m", "cloud", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(program, check=True, stdout=key, cwd=folder, env=environment)


def scrape_config(folder: Path, port: int) -> Path:
    """The shipped configuration, faster and for this port."""
    shipped = (DEPLOY / "prometheus.yml").read_text()
    for was, becomes in (
        ("scrape_interval: 15s", "scrape_interval: 300ms"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("alerts.yml", str(DEPLOY / "alerts.yml")),
    ):
        assert was in shipped
        shipped = shipped.replace(was, becomes)
    config = folder / "prometheus.yml"
    config.write_text(shipped)
    return config


def drive(broker: PrivateBroker, folder: Path) -> None:
    """Two breaches that bring revisions, a late one that does not, verdicts, trips, garbage."""
    car = Car("car", load_bundle(folder / "bundle"))
    peer = Peer(broker, "car")
    peer.subscribe("twin/v1/car/parameters")
    for known, verdict in ((1, "applied"), (2, "refused")):
        trip = known + 4
        peer.publish("twin/v1/car/trip", encode(car.trip(trip, breach=True)))
        peer.publish("twin/v1/car/breach", encode(car.breach(trip)))
        _await(peer, known)
        content = decode(peer.received[-1][1], SignedRevision).revision.encode()
        revision = decode_revision(content)
        row: Any = type("Row", (), {"number": revision.number, "hash": revision_hash(content)})
        peer.publish("twin/v1/car/ack", encode(car.acknowledgement(row, verdict)))
    peer.publish("twin/v1/car/breach", encode(car.breach(1)))
    peer.publish("twin/v1/car/trip", b"{")
    peer.close()


def _await(peer: Peer, revisions: int) -> None:
    eventually(lambda: len(peer.received) >= revisions, what="the revision")


def executed(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_dashboard_yields_data(scraped: Prometheus, name: str) -> None:
    values = scraped.ask(executed(QUERIES[name]))
    assert values
    assert any(value == value for value in values), "nothing but NaN"  # noqa: PLR0124


def test_every_alert_is_loaded_and_what_it_compares_has_data(scraped: Prometheus) -> None:
    rules = scraped.rules()
    assert len(rules) > 8
    for rule in rules:
        assert rule["health"] in {"ok", "unknown"}, rule
        compared = COMPARISON.sub("", rule["query"])
        assert compared != rule["query"], f"{rule['name']} does not end in a comparison"
        assert scraped.ask(compared), rule["name"]
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert not firing, "a healthy service raises no alarm"


def test_promtool_accepts_rules_and_configuration() -> None:
    for arguments in (("rules", "alerts.yml"), ("config", "--syntax-only", "prometheus.yml")):
        done = promtool("check", *arguments, cwd=DEPLOY)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_on_what_it_is_for() -> None:
    cases = ROOT / "tests/data/prometheus_alerts.yml"
    named = set(re.findall(r"alertname: (\w+)", cases.read_text()))
    alerts = set(re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text()))
    assert named == alerts
    done = promtool("test", "rules", cases)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_a_title_a_unit_and_say_what_they_show() -> None:
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["description"].strip()
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
    places = [
        (cell_x, cell_y)
        for panel in DASHBOARD["panels"]
        for cell_x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for cell_y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places)), "two panels overlap"
