"""One process: link, ingest, worker and API, started in order and stopped in order.

Must never start anything before the API's port is its own, and must leave nothing behind that a
kill -9 would not leave as well.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn

from cloud.alerts.housekeeping import Housekeeping
from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.audit.head_keeper import heads_of
from cloud.calibration.rounds import Calibrations
from cloud.config import Config
from cloud.errors import PortOccupiedError
from cloud.intake.ingest import Committed, Ingest
from cloud.maintenance.planner import Planner
from cloud.mqtt.choice import open_link
from cloud.mqtt.protocol import Inbox
from cloud.push.releases import Releases
from cloud.roles.parts import Parts
from cloud.roles.worker import Worker
from cloud.rollout.conductor import Rollouts
from cloud.traces.keeper import keeper_of

log = logging.getLogger(__name__)

INBOX: Final = 1024
# Ingest wakes the worker and goes on with receipts: by default it may keep the worker for 5 ms.
SWITCH_INTERVAL_S: Final = 0.0005
GRACE_S: Final = 5


class Service:
    """Everything but the API. `start()`, then `stop()`; neither twice."""

    def __init__(
        self, config: Config, clock: Callable[[], float], connected: Callable[[], None]
    ) -> None:
        """Load and open everything. Raises TwinError: what cannot be used, and why."""
        self.parts = Parts(config, "serve", clock)
        self.catalogue, self.store = self.parts.catalogue, self.parts.store
        self.telemetry, self.metrics = self.parts.telemetry, self.parts.metrics
        author = self.parts.author
        self._inbox: Inbox = queue.Queue(INBOX)
        self.metrics.watch_inbox(self._inbox.qsize)
        self._told_connected = connected
        self.link = open_link(config.mqtt, self._inbox, self._connected, random.Random())  # noqa: S311  # jitter
        calibrations = Calibrations(self.store, self.catalogue, author, clock, self.parts.archive)
        self.metrics.watch_link(lambda: self.link.is_connected)
        releases = Releases(self.store, self.catalogue, author, self.link, clock)
        self.worker = Worker(
            self.store,
            calibrations,
            self.link,
            clock,
            author,
            releases,
            self.telemetry,
            Rollouts(self.store, self.catalogue, clock),
        )
        self.ingest = Ingest(
            self.store,
            self.catalogue,
            self.link,
            clock,
            self._committed,
            author.key,
            self.telemetry,
        )
        self._stopping, self._no_more = threading.Event(), threading.Event()
        keeper = heads_of(config, self.store, author, clock, self._no_more)
        self._heads = self._thread("heads", *keeper)
        planner = Planner(self.store, self.catalogue, clock)
        jitter = random.Random()  # noqa: S311
        self._house = Housekeeping(self.store, config, clock, jitter, planner.turn)
        self._housekeeping = self._thread("housekeeping", self._house.run, self._no_more)
        trace_keeper = keeper_of(config, self.store, clock)
        self._traces = self._thread("traces", trace_keeper.run, self._no_more)
        self._threads = {
            "ingest": self._thread("ingest", self.ingest.run, self._inbox, self._stopping),
            "worker": self._thread("worker", self.worker.run, self._stopping),
        }

    def start(self) -> None:
        """Start the threads and, last, the link."""
        for thread in self._threads.values():
            thread.start()
        self._heads.start()
        self._housekeeping.start()
        self._traces.start()
        self.link.start()

    def stop(self) -> None:
        """Finish what is in hand; what is not acknowledged stays with the broker."""
        self._stopping.set()
        self.worker.wake()
        with contextlib.suppress(queue.Full):  # full: then ingest does not wait for anything
            self._inbox.put_nowait(None)
        for thread in self._threads.values():
            thread.join()
        self._no_more.set()  # what is calibrated till the end belongs to the last statement
        self._heads.join()
        self._housekeeping.join()
        self._traces.join()
        self.link.stop()
        self.parts.close()

    def checks(self) -> dict[str, Callable[[], str | None]]:
        """What `/health/ready` asks."""
        alive = {name: self._is_alive(thread) for name, thread in self._threads.items()}
        alive["worker"] = lambda: self._is_alive(self._threads["worker"])() or self.worker.trouble
        is_kept = self._is_alive(self._housekeeping)
        alive["housekeeping"] = lambda: is_kept() or self._house.trouble
        return {**self.parts.checks(), "broker": self._broker, **alive}

    def _connected(self) -> None:
        self.metrics.connections.inc()
        self.worker.reconnected()
        self._told_connected()

    def _committed(self, news: Committed) -> None:
        self.worker.keys.ask(news.behind_on_keys)
        if news.republish:
            self.worker.republish(news.republish)
        if news.behind_on_keys or news.newcomers:
            self.worker.wake()
        elif news.new_breaches:
            self.worker.wake_for_breaches()

    def _broker(self) -> str | None:
        return None if self.link.is_connected else "there is no connection to the broker"

    @staticmethod
    def _is_alive(thread: threading.Thread) -> Callable[[], str | None]:
        return lambda: None if thread.is_alive() else "its thread has ended"

    @staticmethod
    def _thread(name: str, run: Callable[..., None], *args: object) -> threading.Thread:
        return threading.Thread(target=run, args=args, name=name, daemon=True)


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises TwinError before anything is started."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    listener = listen(config.api.host, config.api.port)
    address = "http://{}:{}".format(*listener.getsockname()[:2])
    broker = f"{config.mqtt.host}:{config.mqtt.port}"
    ready = Ready({"api", "broker"}, lambda: log.info("ready api=%s broker=%s", address, broker))
    with listener:
        service = Service(config, time.time, lambda: ready.mark("broker"))
        server = api_server(
            service.parts.api(service.checks(), service.worker.wake), lambda: ready.mark("api")
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn takes these over and raises them again when it has ended: by then, enough.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        service.start()
        try:
            server.run(sockets=[listener])
        finally:
            service.stop()
    log.info("stopped")


def listen(host: str, port: int) -> socket.socket:
    """The API's socket, already its own. Raises PortOccupiedError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise PortOccupiedError(host, port, error.strerror or str(error)) from error
    # Connections inherit it. Without it a body waits for the acknowledgement of its headers: 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def api_server(context: Context, started: Callable[[], None]) -> uvicorn.Server:
    """The API's server; `run` blocks until `should_exit` is set."""
    config = uvicorn.Config(
        create_app(context),
        server_header=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
    )
    return _Server(config, started)


class _Server(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, config: uvicorn.Config, told_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told_started = told_started

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._told_started()


class Ready:
    """Tells, once, when every part has been marked. Thread-safe."""

    def __init__(self, parts: set[str], told: Callable[[], None]) -> None:
        self._missing, self._told = parts, told
        self._lock = threading.Lock()

    def mark(self, part: str) -> None:
        """This part is ready."""
        with self._lock:
            was_missing = bool(self._missing)
            self._missing.discard(part)
            if was_missing and not self._missing:
                self._told()
