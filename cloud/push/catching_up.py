"""Say again what nobody has answered, a page at a time: the next when the broker has the last one.

After an outage a fleet's newest revisions may all be open; neither this process nor its link shall
hold them all at once. Must never say what is not committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from cloud.push.announcer import Announcer
from cloud.store import revisions
from cloud.store.database import Store
from cloud.store.tables import Breach

PAGE: Final = 500
PATIENCE_S: Final = 10.0
"""So long the broker's word on a page is waited for: a connection that breaks gives none."""


class CatchingUp:
    """`turn()` belongs to one thread; `begin()` may be called from any."""

    def __init__(
        self,
        store: Store,
        announcer: Announcer,
        clock: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        """`told` is called for each revision that the broker has taken."""
        self._store, self._announcer, self._clock, self._told = store, announcer, clock, told
        self._lock = threading.Lock()
        self._begins = False
        self._vehicle: str | None = None  # whose revision was the last of a page; None: no more
        self._breach: int | None = None
        self._open, self._since = 0, 0.0

    def begin(self) -> None:
        """Everything anew, from the first page on."""
        with self._lock:
            self._begins = True

    def turn(self) -> None:
        """The next page, if it is due. Raises StoreUnavailableError: the same again, next time."""
        with self._lock:
            if self._begins:
                self._vehicle, self._breach, self._open = "", 0, 0
                self._begins = False
            if self._open > 0 and self._clock() - self._since < PATIENCE_S:
                return
        if self._vehicle is not None and self._next_revisions(self._vehicle):
            return
        if self._breach is not None:
            self._next_declined(self._breach)

    def _next_revisions(self, after: str) -> int:
        """How many there were."""
        with self._store.read() as db:
            rows = revisions.unanswered(db, after, PAGE)
        self._expect(len(rows))
        for row in rows:
            self._announcer.revision(row, self._revision_told)
        self._vehicle = rows[-1].vehicle_id if len(rows) == PAGE else None
        return len(rows)

    def _next_declined(self, after: int) -> None:
        with self._store.read() as db:
            rows = revisions.unheard(db, after, PAGE)
        self._expect(len(rows))
        self._announcer.declined(rows, self._declined_told)
        self._breach = rows[-1].id if len(rows) == PAGE else None

    def _expect(self, count: int) -> None:
        with self._lock:
            self._open, self._since = count, self._clock()

    def _revision_told(self) -> None:
        with self._lock:
            self._open -= 1
        self._told()

    def _declined_told(self, breaches: Sequence[Breach]) -> None:
        with self._lock:
            self._open -= len(breaches)
