"""What one process says again, and what it learns of its publishes: one thread's work.

Several processes publish for the same vehicle. Whatever order their messages take, the newest
revision stays with the broker: who has published one looks, once the broker has it, whether a newer
one stands by then, and publishes that. Must never publish what is not committed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from cloud.calibration.revising import Author
from cloud.calibration.rounds import Outcome
from cloud.mqtt.protocol import Publisher
from cloud.observability.telemetry import Telemetry
from cloud.push.announcer import Announcer
from cloud.push.catching_up import CatchingUp
from cloud.push.key_announcer import KeyAnnouncer
from cloud.push.releases import Releases
from cloud.store import revisions
from cloud.store.database import Store
from cloud.store.tables import RevisionRow
from common.errors import TransientError
from common.signing import key_id

log = logging.getLogger(__name__)


class Courier:
    """`turn()` belongs to one thread; everything else may be called from any."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        clock: Callable[[], float],
        author: Author,
        wake: Callable[[], None],
        releases: Releases | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store, self._clock, self._wake = store, clock, wake
        self._telemetry = telemetry or Telemetry()
        self._releases = releases
        self._lock = threading.Lock()
        self._republish: set[str] = set()
        self._republish_all = False
        self.announcer = Announcer(publisher, wake, author)
        self._catching_up = CatchingUp(store, self.announcer, clock, self._telemetry.pushed_again)
        self.keys = KeyAnnouncer(store, publisher, key_id(author.key.public_key()))

    def republish(self, vehicle_ids: Collection[str]) -> None:
        """Publish the newest revision of these vehicles again."""
        with self._lock:
            self._republish.update(vehicle_ids)
        self._wake()

    def republish_unanswered(self) -> None:
        """Publish again whatever the broker may have lost."""
        with self._lock:
            self._republish_all = True
        self._wake()

    def turn(self) -> None:
        """Note what the broker took, publish what was asked. Raises StoreUnavailableError."""
        self._note_confirmed()
        if self._releases is not None:
            self._releases.note_taken()
        self.keys.turn()
        self._publish_again()
        self._catching_up.turn()

    def announce(self, outcomes: Sequence[Outcome], began: float) -> None:
        """Publish what came of a round that began then, and log it."""
        if not outcomes:
            return
        asked_at = self._clock()
        for outcome in outcomes:
            if outcome.row is not None and outcome.row.approval is None:
                self.announcer.revision(outcome.row, self._pushed([outcome], asked_at))
        refused = {o.breach.id: o for o in outcomes if o.row is None}
        self.announcer.declined(
            (o.breach for o in refused.values()),
            lambda breaches: self._pushed([refused[breach.id] for breach in breaches], asked_at)(),
        )
        self._telemetry.settled(outcomes, began)
        for outcome in outcomes:
            _log_outcome(outcome)

    def announce_started(self, rows: Sequence[RevisionRow]) -> None:
        """Publish revisions without a breach."""
        for row in rows:
            self.announcer.revision(row, self._telemetry.pushed_again)
            log.info(
                "revision_without_breach vehicle_id=%s revision=%d cause=%s",
                row.vehicle_id, row.number, row.kind,
            )  # fmt: skip

    def _pushed(self, outcomes: Sequence[Outcome], asked_at: float) -> Callable[[], None]:
        def note() -> None:
            now = self._clock()
            for outcome in outcomes:
                self._telemetry.pushed(outcome, asked_at, now)

        return note

    def _note_confirmed(self) -> None:
        confirmed = self.announcer.confirmed()
        if not confirmed:
            return
        with self._store.write() as db:
            newest = revisions.mark_published(db, confirmed.revisions, self._clock())
            revisions.mark_heard(db, confirmed.declined, self._clock())
        behind = {
            vehicle_id: number
            for vehicle_id, number in confirmed.newest.items()
            if newest[vehicle_id] > number
        }
        if behind:
            self._publish_newer(behind)

    def _publish_newer(self, known: Mapping[str, int]) -> None:
        with self._store.read() as db:
            rows = revisions.newer_than(db, known)
        for row in rows:
            log.info(
                "newer_revision_published vehicle_id=%s revision=%d", row.vehicle_id, row.number
            )
            self.announcer.revision(row, self._telemetry.pushed_again)

    def _publish_again(self) -> None:
        with self._lock:
            vehicle_ids, self._republish = self._republish, set()
            everything, self._republish_all = self._republish_all, False
        try:
            if vehicle_ids:
                self._publish_newest(vehicle_ids)
            if everything:
                self._catching_up.begin()
            if self._releases is not None and (vehicle_ids or everything):
                self._releases.publish_again(None if everything else vehicle_ids)
        except TransientError:
            with self._lock:
                self._republish |= vehicle_ids
                self._republish_all |= everything
            raise

    def _publish_newest(self, vehicle_ids: Collection[str]) -> None:
        with self._store.read() as db:
            rows = [revisions.newest_for(db, vehicle_id) for vehicle_id in vehicle_ids]
        for row in rows:
            if row is not None:
                log.info(
                    "revision_published_again vehicle_id=%s revision=%d",
                    row.vehicle_id, row.number,
                )  # fmt: skip
                self.announcer.revision(row, self._telemetry.pushed_again)


def _log_outcome(outcome: Outcome) -> None:
    breach, row = outcome.breach, outcome.row
    log.info(
        "breach_settled vehicle_id=%s message_id=%s revision=%s reason=%r",
        breach.vehicle_id, breach.message_id, row.number if row else None, breach.reason,
    )  # fmt: skip
