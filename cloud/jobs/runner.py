"""Take jobs and do them, in an event loop of its own: procrastinate fetches, `LaneWork` works.

A worker that ends without a word is noticed by its missing heartbeat, and its lanes are taken over.
Must never do a lane's work itself, and never keep a job that failed: the tables say what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as Row
from procrastinate.jobs import Status

from cloud.errors import StoreUnavailableError
from cloud.jobs.lane_work import LaneWork
from cloud.store import job_queue
from cloud.store.job_queue import JobQueue

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
STALLED_S: Final = 6.0
EVERY_FEW_SECONDS: Final = "* * * * * */3"
EVERY_MINUTE: Final = "* * * * *"
EVERY_TEN_MINUTES: Final = "*/10 * * * *"
RETRY_S: Final = 0.5
POLL_S: Final = 0.25
"""A lane that was wanted again just before it was left waits for so long at most."""
_WITHOUT_FLUSH: Final = {"options": "-c synchronous_commit=off"}
"""Jobs are wake-ups: what a crash of the database's machine loses of them, the next look makes."""


@dataclass(frozen=True)
class Duties:
    """What a worker does besides lanes; each may take its time, on a thread.

    `look` makes jobs of what waits, `suspect` marks a lane over which a worker ended, `republish`
    says whether it could, `state_heads` signs the heads of all chains, `archive_traces` moves old
    traces out of the database. Heads are due every `heads_every_minutes`.
    """

    look: Callable[[], None]
    suspect: Callable[[int], None]
    republish: Callable[[], bool]
    state_heads: Callable[[], None]
    archive_traces: Callable[[], None]
    heads_every_minutes: int


class Runner:
    """`run()` blocks; `stop()` from any thread."""

    def __init__(
        self, url: str, lanes: int, work: LaneWork, queue: JobQueue, duties: Duties
    ) -> None:
        self._url, self._lanes = url, lanes
        self._work, self._queue, self._duties = work, queue, duties
        self._stopping = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self.trouble: str | None = "it has not begun yet"
        """Why no jobs are taken; None while they are."""

    def stop(self) -> None:
        """Take no further job, and return when those in hand are done."""
        self._stopping.set()
        self._stop()

    def run(self) -> None:
        """Take jobs until `stop()`; without a database, wait for it."""
        while not self._stopping.is_set():
            try:
                asyncio.run(self._run_once())
            except (ConnectorException, StoreUnavailableError, OSError) as error:
                log.error("jobs_wait error=%r", str(error))  # noqa: TRY400  # it names the cause
                self.trouble = str(error)
            except Exception as error:
                log.exception("jobs_failed")
                self.trouble = repr(error)
            self._stopping.wait(RETRY_S)

    async def _run_once(self) -> None:
        connector = PsycopgConnector(
            conninfo=self._url, kwargs=_WITHOUT_FLUSH, min_size=2, max_size=6, timeout=5.0
        )
        app = App(connector=connector)
        self._add_tasks(app)
        async with app.open_async():
            loop = asyncio.get_running_loop()
            running = asyncio.ensure_future(
                app.run_worker_async(
                    queues=[job_queue.QUEUE],
                    concurrency=self._lanes,
                    install_signal_handlers=False,
                    delete_jobs="always",
                    update_heartbeat_interval=HEARTBEAT_S,
                    stalled_worker_timeout=10 * STALLED_S,
                    fetch_job_polling_interval=POLL_S,
                )
            )
            self._stop = partial(_cancel, loop, running)
            self.trouble = None
            try:
                if not self._stopping.is_set():
                    await running
            except asyncio.CancelledError:
                log.info("jobs_ended")
            finally:
                self._stop = lambda: None
                self.trouble = "it takes no jobs"

    def _add_tasks(self, app: App) -> None:
        @app.task(name="calibrate")
        async def calibrate(lane: int) -> None:
            await self._hold(lane, orders=False)

        @app.task(name="orders")
        async def orders(lane: int) -> None:
            await self._hold(lane, orders=True)

        @app.periodic(cron=EVERY_FEW_SECONDS)
        @app.task(name="look", queue=job_queue.QUEUE, queueing_lock="look", pass_context=False)
        async def look(timestamp: int = 0) -> None:
            del timestamp
            await self._take_over(app)
            await asyncio.to_thread(self._duties.look)

        @app.periodic(cron=EVERY_MINUTE)
        @app.task(name="heads", queue=job_queue.QUEUE, queueing_lock="heads", lock="heads")
        async def heads(timestamp: int = 0) -> None:
            if timestamp // 60 % self._duties.heads_every_minutes == 0:
                await asyncio.to_thread(self._duties.state_heads)

        @app.periodic(cron=EVERY_TEN_MINUTES)
        @app.task(name="traces", queue=job_queue.QUEUE, queueing_lock="traces", lock="traces")
        async def traces(timestamp: int = 0) -> None:
            del timestamp
            await asyncio.to_thread(self._duties.archive_traces)

        @app.task(name="republish")
        async def republish() -> None:
            if not await asyncio.to_thread(self._duties.republish):
                await asyncio.to_thread(self._queue.defer, [job_queue.REPUBLISH])

    async def _hold(self, lane: int, *, orders: bool) -> None:
        is_pending = await asyncio.wrap_future(self._work.hold(lane, orders=orders))
        if is_pending:
            again = job_queue.orders(lane) if orders else job_queue.calibrate(lane)
            await asyncio.to_thread(self._queue.defer, [again])

    async def _take_over(self, app: App) -> None:
        """Jobs of workers that do not answer: their lanes queue again, and are looked at closer."""
        rows = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S)
        for row in rows:
            await self._take_over_one(app, row)

    async def _take_over_one(self, app: App, row: Row) -> None:
        lane = row.task_kwargs.get("lane")
        log.warning("job_taken_over job=%s lane=%s", row.task_name, lane)
        if isinstance(lane, int):
            await asyncio.to_thread(self._duties.suspect, lane)
        with contextlib.suppress(ConnectorException):  # another worker was faster
            await app.job_manager.finish_job(row, Status.FAILED, delete_job=True)
        if isinstance(lane, int):
            both = [job_queue.calibrate(lane), job_queue.orders(lane)]
            await asyncio.to_thread(self._queue.defer, both)


def _cancel(loop: asyncio.AbstractEventLoop, running: asyncio.Future[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended meanwhile
        loop.call_soon_threadsafe(running.cancel)
