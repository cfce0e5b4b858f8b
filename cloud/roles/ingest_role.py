"""One of several that take vehicles' messages in: link, ingest, and what vehicles are answered.

Must never calibrate anything: it leaves jobs for the workers.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from cloud.errors import StoreUnavailableError
from cloud.intake.ingest import Committed, Ingest
from cloud.mqtt.choice import open_link
from cloud.mqtt.protocol import Inbox
from cloud.mqtt.session import of_ingest
from cloud.push.courier import Courier
from cloud.push.releases import Releases
from cloud.roles.parts import Check, Parts
from cloud.roles.turning import GATHERING_S, Turning
from cloud.store import job_queue
from cloud.store.job_queue import JobQueue
from cloud.store.lanes import lane_of

log = logging.getLogger(__name__)

INBOX: Final = 1024
LEAVING_S: Final = 5.0
"""How long a leaving process waits for the end of what the broker has already sent it."""
QUIET_S: Final = 0.3


class IngestRole:
    """`start()`, then `stop()`; neither twice."""

    def __init__(self, parts: Parts, instance: str | None, connected: Callable[[], None]) -> None:
        """Raises LinkError."""
        self._parts, self._told_connected = parts, connected
        self._inbox: Inbox = queue.Queue(INBOX)
        self._session = of_ingest(parts.config.mqtt, instance)
        self._queue = JobQueue(parts.store)
        self._stopping = threading.Event()
        self._turning = Turning(self._turn, GATHERING_S)
        jitter = random.Random()  # noqa: S311
        self.link = open_link(
            parts.config.mqtt, self._inbox, self._connected, jitter, self._session
        )
        common = (parts.store, self.link, parts.clock, parts.author)
        releases = Releases(parts.store, parts.catalogue, parts.author, self.link, parts.clock)
        self._courier = Courier(*common, self._turning.wake, releases, parts.telemetry)
        self._courier.keys.tells_everybody = False  # of news the workers do
        self._ingest = Ingest(
            parts.store,
            parts.catalogue,
            self.link,
            parts.clock,
            self._committed,
            parts.author.key,
            parts.telemetry,
        )
        parts.metrics.watch_inbox(self._inbox.qsize)
        parts.metrics.watch_link(lambda: self.link.is_connected)
        self._threads = [
            threading.Thread(target=self._ingest.run, args=(self._inbox, self._stopping)),
            threading.Thread(target=self._turning.run, args=(self._stopping,)),
        ]

    def start(self) -> None:
        """Start the threads and, last, the link."""
        for thread in self._threads:
            thread.start()
        self.link.start()
        log.info("ingest_started client_id=%s", self._session.client_id)

    def stop(self) -> None:
        """Finish what is in hand; what is not acknowledged stays with the broker or the vehicle."""
        if self._session.leaves and self.link.is_connected:
            self.link.leave()
            self._await_quiet()
        self._stopping.set()
        self._turning.wake()
        while any(thread.is_alive() for thread in self._threads):
            if self._inbox.empty():
                self._inbox.put(None)
            self._threads[0].join(QUIET_S)
            self._threads[1].join(QUIET_S)
        self.link.stop()

    def checks(self) -> Mapping[str, Check]:
        """What it needs in order to be ready."""
        return {
            "broker": lambda: None if self.link.is_connected else "there is no connection",
            "ingest": lambda: None if self._threads[0].is_alive() else "its thread has ended",
            "courier": lambda: self._turning.trouble,
        }

    def _await_quiet(self) -> None:
        """Until nothing has come for a moment."""
        end = time.monotonic() + LEAVING_S
        quiet_since = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet_since < QUIET_S:
            if not self._inbox.empty():
                quiet_since = time.monotonic()
            time.sleep(QUIET_S / 10)

    def _turn(self) -> None:
        self._parts.refresh()
        self._courier.turn()

    def _connected(self) -> None:
        self._parts.metrics.connections.inc()
        self._told_connected()

    def _committed(self, news: Committed) -> None:
        lanes = {lane_of(vehicle_id) for vehicle_id in news.waiting}
        try:
            self._queue.defer([job_queue.calibrate(lane) for lane in lanes])
        except StoreUnavailableError as error:
            log.warning("jobs_not_left error=%r: a worker's next look finds them", str(error))
        self._courier.keys.ask(news.behind_on_keys)
        if news.republish:
            self._courier.republish(news.republish)
        elif news.behind_on_keys:
            self._turning.wake()
