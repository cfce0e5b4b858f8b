"""What Prometheus may ask of a process: every metric of the service, in base units.

A registry is passed in; there is none of the process's own. Label values come from closed sets: a
vehicle, a topic or a path must never become one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import cloud
from common.messages import RefusalReason
from common.topics import UPWARD

LATENCY_S: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
WORK_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BATCH: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
RECEIVED: Final = ("stored", "repeated", "quarantined")
PUSHES: Final = ("revision", "again", "declined")
VERDICTS: Final = ("applied", "refused", "confirmed")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """The metrics of one process. Children are looked up once; counting takes a lock and an add."""

    def __init__(self, registry: CollectorRegistry | None = None, role: str = "serve") -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._links: list[Callable[[], bool]] = []
        self._count_intake()
        self._count_calibration()
        self._count_link()
        self._count_http()
        self.traces = Counted(
            self._counter("spans", "Spans of breach traces by what became of them.", ["outcome"]),
            (("made",), ("exported",), ("failed",)),
        )
        build = self._gauge("build_info", "Always 1; what runs.", ["version", "python", "role"])
        build.labels(cloud.__version__, platform.python_version(), role).set(1)
        ProcessCollector(registry=self.registry)

    def _count_intake(self) -> None:
        kinds = [(kind, outcome) for kind in (*UPWARD, "other") for outcome in RECEIVED]
        self.received = Counted(
            self._counter(
                "messages_received",
                "Messages from vehicles, after the commit that settled them.",
                ["kind", "outcome"],
            ),
            kinds,
        )
        self.batch_size = self._histogram(
            "ingest_batch_messages", "Messages committed in one transaction.", BATCH
        )
        self.commit_seconds = self._histogram(
            "ingest_commit_seconds", "From taking a batch to its commit.", WORK_S
        )
        self.commit_failures = self._counter(
            "ingest_commit_failures", "Commits of a batch that the database refused; tried again."
        )
        self.receipts = Counted(
            self._counter("receipts", "Receipts: handed to the link, or held back.", ["outcome"]),
            (("sent",), ("unsent",)),
        )
        self.quarantined = Counted(
            self._counter("quarantined", "Messages refused, by the class of reason.", ["reason"])
        )

    def _count_calibration(self) -> None:
        self.calibrations = Counted(
            self._counter("calibrations", "Breaches settled by the worker.", ["outcome"]),
            (("calibrated",), ("declined",)),
        )
        self.round_seconds = self._histogram(
            "calibration_round_seconds",
            "From reading a round of breaches to its commit, signatures included.",
            WORK_S,
        )
        self.to_push = self._histogram(
            "breach_to_push_seconds",
            "From a breach's commit until the broker has its revision.",
            LATENCY_S,
        )
        self.to_acknowledged = self._histogram(
            "breach_to_acknowledged_seconds",
            "From a breach's commit until the vehicle's first verdict is committed.",
            LATENCY_S,
        )
        self.pushes = Counted(
            self._counter("pushes", "News for vehicles that the broker has taken.", ["kind"]),
            ((kind,) for kind in PUSHES),
        )
        self.verdicts = Counted(
            self._counter("verdicts", "Verdicts of vehicles on revisions.", ["verdict", "reason"]),
            [
                (verdict, reason or "none")
                for verdict in VERDICTS
                for reason in get_args(RefusalReason)
                if bool(reason) == (verdict == "refused")
            ],
        )

    def _count_link(self) -> None:
        self.connections = self._counter(
            "link_connections", "Connections to the broker; above 1 each is a reconnection."
        )

    def _count_http(self) -> None:
        self.requests = Counted(
            self._counter("http_requests", "Answered requests.", ["method", "route", "status"])
        )
        self.request_seconds = Histogram(
            "twin_http_request_seconds",
            "Until a request's answer began, by route template.",
            ["method", "route"],
            buckets=LATENCY_S,
            registry=self.registry,
        )

    def watch_inbox(self, depth: Callable[[], float]) -> None:
        """Ask for the inbox's depth when somebody looks."""
        told = "Deliveries that wait for ingest."
        self._gauge("inbox_messages", told).set_function(depth)

    def watch_link(self, is_connected: Callable[[], bool]) -> None:
        """Ask the link when somebody looks, and each one where a process has several roles.

        A process without one has no such metric.
        """
        self._links.append(is_connected)
        if len(self._links) > 1:
            return
        told = "1 while the broker has granted the subscriptions."
        gauge = self._gauge("link_connected", told)
        gauge.set_function(lambda: float(all(one() for one in self._links)))

    def watch_pool(self, states: Mapping[str, Callable[[], float]]) -> None:
        """Ask the pool when somebody looks."""
        told = "Connections to the database, by what they do."
        gauge = self._gauge("database_connections", told, ["state"])
        for state, count in states.items():
            gauge.labels(state).set_function(count)

    def _counter(self, name: str, told: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(f"twin_{name}", told, labels, registry=self.registry)

    def _gauge(self, name: str, told: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"twin_{name}", told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"twin_{name}", told, buckets=buckets, registry=self.registry)


class Counted:
    """A counter by label values, each child looked up once.

    Those that are known beforehand begin at 0, so that a rate sees their first increment.
    """

    def __init__(self, family: Counter, known: Iterable[tuple[str, ...]] = ()) -> None:
        self._family = family
        self._children = {values: family.labels(*values) for values in known}

    def add(self, *values: str, count: float = 1) -> None:
        """Count. Values that were not known make a child."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._family.labels(*values)
        child.inc(count)
