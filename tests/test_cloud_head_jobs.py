"""Workers that share the work state the heads one at a time: real PostgreSQL, real job queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from cloud.jobs.runner import Duties, Runner
from cloud.location import PostgresUrl
from cloud.store.database import Store
from cloud.store.job_queue import HEADS, LOOK, JobQueue
from tests.waiting import eventually

NO_LANES: Any = None


class Work:
    """What two workers are asked to do; heads take until they are `released`."""

    def __init__(self) -> None:
        self.begun, self.ended, self.looks = 0, 0, 0
        self.released = threading.Event()

    def duties(self) -> Duties:
        return Duties(
            self.look, lambda _lane: None, lambda: True, self.state_heads, lambda: None, 1
        )

    def look(self) -> None:
        self.looks += 1

    def has_looked(self, times: int) -> bool:
        return self.looks >= times

    def state_heads(self) -> None:
        self.begun += 1
        self.released.wait()
        self.ended += 1


@contextmanager
def two_workers(url: PostgresUrl, queue: JobQueue, work: Work) -> Iterator[None]:
    runners = [Runner(url.full, 4, NO_LANES, queue, work.duties()) for _ in range(2)]
    threads = [threading.Thread(target=runner.run) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(runner.trouble is None for runner in runners))
        yield
    finally:
        work.released.set()
        for runner in runners:
            runner.stop()
        for thread in threads:
            thread.join()


def test_heads_are_stated_by_one_worker_at_a_time(postgres_database: PostgresUrl) -> None:
    store, work = Store(postgres_database), Work()
    queue = JobQueue(store)
    with two_workers(postgres_database, queue, work):
        queue.defer([HEADS])
        eventually(lambda: work.begun == 1)
        queue.defer([HEADS])
        for _ in range(2):  # what came after it is taken, so it was passed over
            enough = work.looks + 1
            queue.defer([LOOK])
            eventually(partial(work.has_looked, enough))
        assert (work.begun, work.ended) == (1, 0)
        work.released.set()
        eventually(lambda: work.ended >= 2)
    store.close()
