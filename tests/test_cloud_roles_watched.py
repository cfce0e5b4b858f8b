"""Ingest, worker and API as processes of their own, watched from outside while one breach passes.

One installation for everything that is looked at: real PostgreSQL, real Mosquitto.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.bundle import load_bundle
from common.messages import SignedRevision, decode, encode
from common.revision import decode_revision, revision_hash
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.database import PrivatePostgres
from demo.roles import Role, RoleProcess, running, write_config
from tests.cloud_doubles import Car, write_bundle
from tests.conftest import Connect
from tests.waiting import eventually

LONG_S = 90.0
ROLES: tuple[Role, ...] = ("ingest", "worker", "api")
EITHER = {"database", "migrations", "broker"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Watched:
    """The three processes, and what they answer."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._folder = folder
        self.processes = {role: RoleProcess(role, config) for role in ROLES}

    def get(self, role: Role, path: str) -> httpx.Response:
        process = self.processes[role]
        address = process.api() if role == "api" else process.health()
        return httpx.get(f"{address}{path}", trust_env=False, timeout=60.0)

    def samples(self, role: Role) -> Samples:
        text = self.get(role, "/metrics").text
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}

    def total(self, name: str, **labels: str) -> float:
        """Over all processes."""
        key = (name, frozenset(labels.items()))
        return sum(self.samples(role).get(key, 0.0) for role in ROLES)

    def lines(self, role: Role) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.processes[role].log.splitlines()]

    def failing(self, role: Role) -> set[str]:
        """The checks that its readiness names; none when it is ready."""
        answer = self.get(role, "/health/ready")
        assert answer.status_code in {200, 503}, answer.text
        if answer.status_code == httpx.codes.OK:
            assert set(answer.json()["checks"].values()) == {"ok"}
            return set()
        assert answer.headers["content-type"] == "application/problem+json"
        return {one["where"] for one in answer.json()["violations"]}

    def await_failing(self, role: Role, lacking: set[str]) -> None:
        """Until its readiness names exactly these, the consequences in other parts apart."""
        eventually(lambda: self.failing(role) & EITHER == lacking, LONG_S, f"{role}: {lacking}")

    def await_ready(self, role: Role) -> None:
        eventually(lambda: not self.failing(role), LONG_S, f"{role} is ready")

    def await_value(self, role: Role, name: str, value: float) -> None:
        """What is asked of the database is kept for a few seconds."""
        key = name, labels()
        eventually(lambda: self.samples(role).get(key) == value, LONG_S, f"{role}: {name}")


@pytest.fixture
def server(postgres: PrivatePostgres) -> Iterator[PrivatePostgres]:
    """One that may be stopped: that of the other tests may not."""
    assert postgres.running
    with PrivatePostgres(durable=False) as private:
        yield private


def test_three_processes_tell_one_story_of_a_breach_and_name_what_they_lack(
    tmp_path: Path, server: PrivatePostgres, mosquitto: PrivateBroker, connect: Connect
) -> None:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    config = write_config(
        tmp_path,
        broker_port=mosquitto.port,
        store=server.create("watched"),
        bundle=tmp_path / "bundle",
        key=tmp_path / "private.pem",
        more='[logs]\nformat = "json"\n',
    )
    text = config.read_text().replace("[api]\n", '[api]\nauth = "none"\n')
    config.write_text(text)
    watched = Watched(tmp_path, config)
    with running(*watched.processes.values()):
        send_a_breach_and_its_verdict(tmp_path, mosquitto, connect)
        acknowledged = "twin_breach_to_acknowledged_seconds_count"
        eventually(lambda: watched.total(acknowledged) == 1, LONG_S, "the verdict")
        require_counts(watched)
        require_names(watched)
        for role in ROLES:
            watched.await_ready(role)
        server.stop()
        for role in ROLES:
            watched.await_failing(role, {"database", "migrations"})
            watched.await_value(role, "twin_database_reachable", 0.0)
            assert watched.get(role, "/health/live").json() == {"status": "ok"}
            assert dict(build(watched.samples(role)))["role"] == role
        server.start()
        for role in ROLES:
            watched.await_ready(role)


def send_a_breach_and_its_verdict(folder: Path, broker: PrivateBroker, connect: Connect) -> None:
    car, peer = Car("car", load_bundle(folder / "bundle")), connect(broker, "car")
    peer.subscribe("twin/v1/car/parameters")
    peer.publish("twin/v1/car/trip", encode(car.trip(5, breach=True)))
    peer.publish("twin/v1/car/breach", encode(car.breach(5)))
    eventually(lambda: bool(peer.received), LONG_S, "the revision")
    content = decode(peer.received[-1][1], SignedRevision).revision.encode()
    row: Any = type(
        "Row", (), {"number": decode_revision(content).number, "hash": revision_hash(content)}
    )
    peer.publish("twin/v1/car/ack", encode(car.acknowledgement(row, "applied")))


def require_counts(watched: Watched) -> None:
    """Each thing is counted once, by the process that did it."""
    received = "twin_messages_received_total"
    for kind in ("trip", "breach", "ack"):
        assert watched.total(received, kind=kind, outcome="stored") == 1, kind
        assert watched.samples("worker")[received, labels(kind=kind, outcome="stored")] == 0
    assert watched.total("twin_calibrations_total", outcome="calibrated") == 1
    settled = "twin_calibrations_total", labels(outcome="calibrated")
    assert watched.samples("worker")[settled] == 1
    assert watched.total("twin_breach_to_push_seconds_count") == 1
    assert watched.total("twin_verdicts_total", verdict="applied", reason="none") == 1
    for role in ROLES:
        watched.await_value(role, "twin_pending_breaches", 0.0)
        assert watched.samples(role)["twin_workers", labels()] == 1
        assert watched.samples(role)["twin_jobs_stalled", labels()] == 0
    assert ("twin_link_connected", labels()) not in watched.samples("api")


def require_names(watched: Watched) -> None:
    """The role is in the metrics and in every line of the log; the breach is where it was."""
    for role in ROLES:
        assert dict(build(watched.samples(role)))["role"] == role
        assert {line["role"] for line in watched.lines(role)} == {role}
    settled = [one for one in watched.lines("worker") if one["event"] == "breach_settled"]
    assert [(one["vehicle_id"], one["revision"]) for one in settled] == [("car", 1)]
    assert watched.get("api", "/api/v1/vehicles/car").status_code == httpx.codes.OK

    def asked() -> list[str]:
        lines = watched.lines("api")
        return [one["event"] for one in lines if one.get("path") == "/api/v1/vehicles/car"]

    eventually(lambda: asked() == ["api_answered"])  # the line follows the answer


def build(samples: Samples) -> frozenset[tuple[str, str]]:
    [found] = [named for name, named in samples if name == "twin_build_info"]
    return found


def labels(**named: str) -> frozenset[tuple[str, str]]:
    return frozenset(named.items())
