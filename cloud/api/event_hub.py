"""One tail of the events for all who follow them in this process, and a bounded queue for each.

Must never let a slow reader hold up the others, nor hold more than QUEUE events for one: whoever
falls behind is told so, dropped, and comes again with the id of the last event that it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cloud.errors import StoreUnavailableError
from cloud.store import event_pages
from cloud.store.database import Store
from cloud.store.event_pages import Wanted
from cloud.store.event_tables import Event

log = logging.getLogger(__name__)

QUEUE: Final = 1000
PAGE: Final = 500
POLL_S: Final = 0.25
RETRY_S: Final = 1.0
Said = Event | Literal["gap", "dropped"] | None
"""An event; `gap`: what came before is not kept any more; `dropped`: the end; None: nothing now."""


@dataclass(eq=False)
class _Follower:
    wanted: Wanted
    behind: int  # what came up to here is read for it alone: the tail may lag
    queue: asyncio.Queue[Event] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    is_dropped: bool = False

    def offer(self, event: Event) -> None:
        is_known = (event.id or 0) <= self.behind
        if self.is_dropped or is_known or not self.wanted.takes(event):
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.is_dropped = True


class EventHub:
    """Belongs to one event loop. The tail runs while somebody follows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: set[_Follower] = set()
        self._last = event_pages.START
        self._tail: asyncio.Task[None] | None = None

    @property
    def followers(self) -> int:
        """How many follow now."""
        return len(self._followers)

    async def follow(
        self, wanted: Wanted, since: int | None, quiet_s: float
    ) -> AsyncGenerator[Said, None]:
        """What happens from now on, or behind `since`; None after each `quiet_s` without anything.

        Raises StoreUnavailableError, before the first is given.
        """
        newest = await asyncio.to_thread(self._newest)
        if self._tail is None or self._tail.done():
            self._last = newest
        follower = _Follower(wanted, behind=max(newest, self._last))
        self._followers.add(follower)  # nothing was awaited since: it misses nothing
        if self._tail is None or self._tail.done():
            self._tail = asyncio.create_task(self._run())
        try:
            if since is not None:
                async for said in self._missed(wanted, since, follower.behind):
                    yield said
            async for said in _queued(follower, quiet_s):
                yield said
        finally:
            self._followers.discard(follower)

    async def _missed(self, wanted: Wanted, since: int, until: int) -> AsyncIterator[Said]:
        """What the reader has not had, read for it alone, page by page."""
        oldest = await asyncio.to_thread(self._oldest)
        if oldest is not None and event_pages.START < since < oldest - 1:
            yield "gap"
        while since < until:
            rows = await asyncio.to_thread(self._read, since, until)
            for row in rows:
                if wanted.takes(row):
                    yield row
            if len(rows) < PAGE:
                return
            since = rows[-1].id or since

    async def _run(self) -> None:
        while self._followers:
            try:
                rows = await asyncio.to_thread(self._read, self._last)
            except StoreUnavailableError as error:
                log.warning("event_tail_waits error=%r", str(error))
                await asyncio.sleep(RETRY_S)
                continue
            for row in rows:
                for follower in self._followers:
                    follower.offer(row)
            if rows:
                self._last = rows[-1].id or self._last
            if len(rows) < PAGE:
                await asyncio.sleep(POLL_S)

    def _read(self, last: int, until: int | None = None) -> Sequence[Event]:
        with self._store.read() as db:
            return event_pages.after(db, last, PAGE, until)

    def _newest(self) -> int:
        with self._store.read() as db:
            return event_pages.newest_id(db)

    def _oldest(self) -> int | None:
        with self._store.read() as db:
            return event_pages.oldest_id(db)


async def _queued(follower: _Follower, quiet_s: float) -> AsyncIterator[Said]:
    """Until it is dropped; what was queued before that is still given."""
    while not (follower.is_dropped and follower.queue.empty()):
        try:
            yield await asyncio.wait_for(follower.queue.get(), quiet_s)
        except TimeoutError:
            yield None
    yield "dropped"
