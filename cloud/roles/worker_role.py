"""One of several that calibrate and publish: whichever is free takes the next lane.

Must never stay alive over a round that does not end: another worker can only take over then.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from cloud.alerts.housekeeping import Housekeeping
from cloud.audit.head_keeper import keeper_of
from cloud.calibration.rounds import Calibrations
from cloud.jobs.lane_work import LaneWork
from cloud.jobs.runner import Duties, Runner
from cloud.jobs.upkeep import Upkeep
from cloud.location import PostgresUrl
from cloud.maintenance.planner import Planner
from cloud.mqtt.choice import open_link
from cloud.mqtt.session import of_worker
from cloud.push.courier import Courier
from cloud.push.releases import Releases
from cloud.roles.parts import Check, Parts
from cloud.roles.turning import GATHERING_S, Turning
from cloud.store import job_queue
from cloud.store.job_queue import JobQueue
from cloud.traces.keeper import keeper_of as trace_keeper_of

log = logging.getLogger(__name__)

WATCH_S: Final = 0.5
STUCK: Final = 1
"""The exit code of a worker that ends itself."""


class WorkerRole:
    """`start()`, then `stop()`; neither twice."""

    def __init__(self, parts: Parts, location: PostgresUrl, connected: Callable[[], None]) -> None:
        """Raises LinkError."""
        self._parts, self._told_connected = parts, connected
        self._stopping, self._ending = threading.Event(), threading.Event()
        self._has_reconnected = threading.Event()
        self._turning = Turning(self._turn, GATHERING_S)
        self._queue = JobQueue(parts.store)
        jitter = random.Random()  # noqa: S311
        session = of_worker(parts.config.mqtt)
        self.link = open_link(parts.config.mqtt, queue.Queue(), self._connected, jitter, session)
        parts.metrics.watch_link(lambda: self.link.is_connected)
        releases = Releases(parts.store, parts.catalogue, parts.author, self.link, parts.clock)
        self._courier = Courier(
            parts.store,
            self.link,
            parts.clock,
            parts.author,
            self._turning.wake,
            releases,
            parts.telemetry,
        )
        self._work = LaneWork(self._calibrations, self._courier, parts.clock)
        upkeep = Upkeep(
            parts.store, parts.catalogue, self._queue, self._courier, releases, parts.clock
        )
        keeper = keeper_of(parts.config, parts.store, parts.author, parts.clock)
        traces = trace_keeper_of(parts.config, parts.store, parts.clock)
        duties = Duties(
            upkeep.look,
            self._calibrations().suspect,
            self._republish,
            keeper.guarded_turn,
            partial(traces.guarded_turns, self._ending),
            max(1, round(parts.config.heads.every_minutes)),
        )
        self._runner = Runner(
            location.full, parts.config.worker.lanes, self._work, self._queue, duties
        )
        planner = Planner(parts.store, parts.catalogue, parts.clock)
        self._house = Housekeeping(parts.store, parts.config, parts.clock, jitter, planner.turn)
        self._housekeeping = threading.Thread(target=self._house.run, args=(self._stopping,))
        self._threads = [
            threading.Thread(target=self._work.run),
            threading.Thread(target=self._runner.run),
            threading.Thread(target=self._turning.run, args=(self._stopping,)),
        ]

    def start(self) -> None:
        """Start the link, then the threads."""
        self.link.start()
        self._housekeeping.start()
        threading.Thread(target=self._watch, daemon=True).start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the round in hand; other workers take what is left."""
        self._ending.set()
        self._work.stop()
        self._runner.stop()
        for thread in self._threads[:2]:
            thread.join()
        self._stopping.set()
        self._turning.wake()
        self._threads[2].join()
        self._housekeeping.join()
        self.link.stop()

    def checks(self) -> Mapping[str, Check]:
        """What it needs in order to be ready."""
        return {
            "broker": lambda: None if self.link.is_connected else "there is no connection",
            "worker": lambda: self._runner.trouble,
            "courier": lambda: self._turning.trouble,
            "housekeeping": self._house_trouble,
        }

    def _house_trouble(self) -> str | None:
        return self._house.trouble if self._housekeeping.is_alive() else "its thread has ended"

    def _calibrations(self) -> Calibrations:
        parts = self._parts
        return Calibrations(parts.store, parts.catalogue, parts.author, parts.clock, parts.archive)

    def _turn(self) -> None:
        self._parts.refresh()
        if self._has_reconnected.is_set():
            self._queue.defer([job_queue.REPUBLISH])
            self._has_reconnected.clear()
        self._courier.turn()

    def _republish(self) -> bool:
        if self.link.is_connected:
            self._courier.republish_unanswered()
        return self.link.is_connected

    def _connected(self) -> None:
        self._parts.metrics.connections.inc()
        self._has_reconnected.set()
        self._turning.wake()
        self._told_connected()

    def _watch(self) -> None:
        """Nothing can interrupt a thread that hangs: the process ends, and its lanes go on."""
        deadline_s = self._parts.config.worker.deadline_s
        while not self._stopping.wait(WATCH_S):
            since = self._work.busy_since
            if since is not None and time.monotonic() - since > deadline_s:
                log.critical("worker_stuck seconds=%s: ending, others take over", deadline_s)
                os._exit(STUCK)
