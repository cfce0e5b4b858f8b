"""Tell vehicles what is committed, and learn when the broker has taken it.

Must never be called for a revision that is not committed. Any thread may announce.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from cloud.calibration.revising import Author, signed_now
from cloud.mqtt.protocol import Publisher
from cloud.store.new_revisions import NewRevision
from cloud.store.tables import Breach, RevisionRow
from common.messages import Declined, Receipt, encode
from common.topics import topic

DECLINED_AT_ONCE: Final = 256
_Entry = TypeVar("_Entry")


def nothing(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Confirmed:
    """Rows whose news the broker has taken, by id.

    `newest` of each vehicle is the number of the last revision that this process handed over, where
    the broker has it: another process may have published an older one after it, or a newer before.
    """

    revisions: Sequence[int]
    declined: Sequence[int]
    newest: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.revisions or self.declined)


@dataclass(frozen=True)
class _Taken:
    row: int
    vehicle_id: str
    number: int


class Announcer:
    """`wake` is called, from any thread, when there is something new in `confirmed()`."""

    def __init__(self, publisher: Publisher, wake: Callable[[], None], author: Author) -> None:
        self._publisher, self._author = publisher, author
        self._wake = wake
        self._revisions: deque[_Taken] = deque()
        self._declined: deque[int] = deque()
        self._lock = threading.Lock()
        self._handed_over: dict[str, int] = {}

    def revision(self, row: RevisionRow | NewRevision, told: Callable[[], None] = nothing) -> None:
        """Publish a revision, retained; `told` is called, from any thread, once the broker has it.

        Without a connection nothing happens, and it comes later.
        """
        with self._lock:
            before = self._handed_over.get(row.vehicle_id, 0)
            self._handed_over[row.vehicle_id] = max(row.number, before)
        name = topic(row.vehicle_id, "parameters")
        payload = encode(signed_now(row, self._author))
        taken = partial(self._note_revision, _Taken(row.id or 0, row.vehicle_id, row.number), told)
        self._publisher.publish(name, payload, taken, retain=True)

    def declined(
        self, breaches: Iterable[Breach], told: Callable[[Sequence[Breach]], None] = nothing
    ) -> None:
        """Publish that these breaches bring no revision, one receipt a vehicle; `told` as above."""
        by_vehicle: dict[str, list[Breach]] = {}
        for breach in breaches:
            by_vehicle.setdefault(breach.vehicle_id, []).append(breach)
        for vehicle_id, entries in by_vehicle.items():
            for start in range(0, len(entries), DECLINED_AT_ONCE):
                self._declined_of(vehicle_id, entries[start : start + DECLINED_AT_ONCE], told)

    def confirmed(self) -> Confirmed:
        """What the broker has taken since the last call."""
        taken = _drain(self._revisions)
        newest = {}
        with self._lock:
            for one in taken:
                if self._handed_over.get(one.vehicle_id) == one.number:
                    newest[one.vehicle_id] = self._handed_over.pop(one.vehicle_id)
        return Confirmed([one.row for one in taken], _drain(self._declined), newest)

    def _declined_of(
        self,
        vehicle_id: str,
        breaches: Sequence[Breach],
        told: Callable[[Sequence[Breach]], None],
    ) -> None:
        receipt = Receipt(
            vehicle_id=vehicle_id,
            declined=[Declined(breach.message_id, breach.reason or "") for breach in breaches],
        )
        ids = [breach.id or 0 for breach in breaches]
        taken = partial(self._note_declined, ids, partial(told, breaches))
        self._publisher.publish(topic(vehicle_id, "receipt"), encode(receipt), taken)

    def _note_revision(self, taken: _Taken, told: Callable[[], None]) -> None:
        self._revisions.append(taken)
        told()
        self._wake()

    def _note_declined(self, ids: Iterable[int], told: Callable[[], None]) -> None:
        self._declined.extend(ids)
        told()
        self._wake()


def _drain(queue: deque[_Entry]) -> list[_Entry]:
    return [queue.popleft() for _ in range(len(queue))]
