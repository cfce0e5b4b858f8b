"""Tell vehicles what the worker has committed, and learn when the broker has taken it.

Must never be called for a revision that is not committed, nor from two threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cloud.calibration.revising import Author, signed_now
from cloud.mqtt.protocol import Publisher
from cloud.store.tables import Breach, RevisionRow
from common.messages import Declined, Receipt, encode
from common.topics import topic

DECLINED_AT_ONCE: Final = 256


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Confirmed:
    """Rows whose news the broker has taken, by id."""

    revisions: Sequence[int]
    declined: Sequence[int]

    def __bool__(self) -> bool:
        return bool(self.revisions or self.declined)


class Announcer:
    """`wake` is called, from any thread, when there is something new in `confirmed()`."""

    def __init__(self, publisher: Publisher, wake: Callable[[], None], author: Author) -> None:
        self._publisher, self._author = publisher, author
        self._wake = wake
        self._revisions: deque[int] = deque()
        self._declined: deque[int] = deque()

    def revision(self, row: RevisionRow, told: Callable[[], None] = _nothing) -> None:
        """Publish a revision, retained. Without a connection nothing happens: it comes later.

        `told` is called, from any thread, when the broker has it.
        """
        name = topic(row.vehicle_id, "parameters")
        taken = partial(self._note, self._revisions, [row.id or 0], told)
        self._publisher.publish(name, encode(signed_now(row, self._author)), taken, retain=True)

    def declined(
        self, breaches: Iterable[Breach], told: Callable[[Sequence[Breach]], None] = _nothing
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
        return Confirmed(_drain(self._revisions), _drain(self._declined))

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
        taken = partial(self._note, self._declined, ids, partial(told, breaches))
        self._publisher.publish(topic(vehicle_id, "receipt"), encode(receipt), taken)

    def _note(self, into: deque[int], ids: Iterable[int], told: Callable[[], None]) -> None:
        into.extend(ids)
        self._wake()
        told()


def _drain(ids: deque[int]) -> list[int]:
    return [ids.popleft() for _ in range(len(ids))]
