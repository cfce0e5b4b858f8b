"""One process of `twin-cloud`: which roles it has, how it begins, and how it ends.

On SQLite one process does everything. On PostgreSQL each role may run several times, or all of them
in one. Must never start anything before the ports are its own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal, Protocol

from cloud.config import Config, load_config
from cloud.errors import RoleError, StoreUnavailableError
from cloud.location import PostgresUrl
from cloud.observability.logs import configure_logging
from cloud.observability.probes import Probes
from cloud.roles import service
from cloud.roles.ingest_role import IngestRole
from cloud.roles.parts import Check, Parts
from cloud.roles.service import Ready, api_server, listen
from cloud.roles.turning import Turning
from cloud.roles.worker_role import WorkerRole
from cloud.store import job_queue
from cloud.store.job_queue import JobQueue

log = logging.getLogger(__name__)

Role = Literal["ingest", "worker", "api", "serve"]
GRACE_S: Final = 30.0
"""How long a process may take to finish what is in hand."""
TOO_SLOW: Final = 1


class _Running(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...

    def checks(self) -> Mapping[str, Check]: ...


def run(
    config_path: Path, role: Role, instance: str | None = None, health_port: int | None = None
) -> None:
    """Run until SIGTERM or SIGINT. Raises TwinError before anything is started."""
    config = load_config(config_path)
    configure_logging(config.logs.format, role)
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    location = config.database()
    if not isinstance(location, PostgresUrl):
        if role != "serve":
            raise RoleError(role, location)
        service.serve(config)
        return
    sys.setswitchinterval(service.SWITCH_INTERVAL_S)
    _Process(config, location, role, instance, health_port).run()


class _Process:
    def __init__(
        self,
        config: Config,
        location: PostgresUrl,
        role: Role,
        instance: str | None,
        health_port: int | None,
    ) -> None:
        self._config, self._location, self._role = config, location, role
        self._instance, self._health_port = instance, health_port
        self._end = threading.Event()
        self._ask_to_end: Callable[[], None] = self._end.set

    def run(self) -> None:
        with ExitStack() as open_things:
            listener = None
            if self._role in ("api", "serve"):
                api = self._config.api
                listener = open_things.enter_context(listen(api.host, api.port))
            parts = Parts(self._config, self._role)
            open_things.callback(parts.close)
            ready = self._ready(listener.getsockname() if listener else None)
            running = self._roles(parts, ready)
            checks = parts.checks()
            for one in running:
                checks |= one.checks()
            probes = self._probes(parts, checks)
            self._obey_signals()
            _start(open_things, [*([probes] if probes else []), *running])
            if listener is None:
                self._end.wait()
            else:
                context = parts.api(checks, _look(parts))
                server = api_server(context, lambda: ready.mark("api"))
                self._ask_to_end = lambda: setattr(server, "should_exit", True)
                if not self._end.is_set():
                    server.run(sockets=[listener])
            self._limit_the_end()
        log.info("stopped")

    def _roles(self, parts: Parts, ready: Ready) -> list[_Running]:
        running: list[_Running] = []
        if self._role in ("worker", "serve"):
            running.append(WorkerRole(parts, self._location, lambda: ready.mark("worker")))
        if self._role in ("ingest", "serve"):
            instance = self._instance or ("serve" if self._role == "serve" else None)
            running.append(IngestRole(parts, instance, lambda: ready.mark("ingest")))
        if self._role == "api":
            running.append(_Refreshing(parts))
        return running

    def _ready(self, api: tuple[str, int] | None) -> Ready:
        mqtt = self._config.mqtt
        missing = {"api": {"api"}, "ingest": {"ingest"}, "worker": {"worker"}}.get(
            self._role, {"api", "ingest", "worker"}
        )
        address = "http://{}:{}".format(*api[:2]) if api else "none"
        broker = f"{mqtt.host}:{mqtt.port}"
        return Ready(set(missing), lambda: log.info("ready api=%s broker=%s", address, broker))

    def _probes(self, parts: Parts, checks: Mapping[str, Check]) -> Probes | None:
        port = self._config.health.port if self._health_port is None else self._health_port
        if port is None or self._role in ("api", "serve"):
            return None
        probes = Probes(self._config.health.host, port, checks, parts.metrics)
        log.info("health_listens address=%s", probes.address)
        return probes

    def _obey_signals(self) -> None:
        def end(*_: object) -> None:
            self._end.set()
            self._ask_to_end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)

    def _limit_the_end(self) -> None:
        def give_up() -> None:
            log.critical("end_takes_too_long seconds=%s: ending without it", GRACE_S)
            os._exit(TOO_SLOW)

        timer = threading.Timer(GRACE_S, give_up)
        timer.daemon = True
        timer.start()


class _Startable(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


def _start(open_things: ExitStack, running: Collection[_Startable]) -> None:
    for one in running:
        one.start()
        open_things.callback(one.stop)


class _Refreshing:
    """An API beside other processes learns of bundles that they announce."""

    def __init__(self, parts: Parts) -> None:
        self._stopping = threading.Event()
        self._turning = Turning(parts.refresh)
        self._thread = threading.Thread(target=self._turning.run, args=(self._stopping,))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._turning.wake()
        self._thread.join()

    def checks(self) -> Mapping[str, Check]:
        return {}


def _look(parts: Parts) -> Callable[[], None]:
    """Let a worker look at what an operator has ordered; it would by itself in a few seconds."""
    jobs = JobQueue(parts.store)

    def wake() -> None:
        try:
            jobs.defer([job_queue.LOOK])
        except StoreUnavailableError as error:
            log.warning("jobs_not_left error=%r: a worker's next look finds them", str(error))

    return wake
